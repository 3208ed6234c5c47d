"""Progress bars: the time left is that of the work which is left."""

import io
import re
import time

from stages.common.progress import AnswerBar

LEFT = re.compile(r"(\d+)/(\d+) \[[\d:]+<([\d:?]+)")


def test_late_first_answers_do_not_make_the_time_left_longer():
    shown = io.StringIO()
    with AnswerBar(total=2000, desc="model", warm_up=4, file=shown, mininterval=0) as bar:
        for _ in range(4):
            time.sleep(0.2)
            bar.update()
        for _ in range(40):
            time.sleep(0.001)
            bar.update()
    left = {int(done): rest for done, _, rest in LEFT.findall(shown.getvalue())}
    assert [left[done] for done in (0, 1, 3)] == ["?", "?", "?"]
    minutes, seconds = map(int, left[40].split(":"))
    assert 60 * minutes + seconds < 30  # at the pace of the first four it were 6 minutes
