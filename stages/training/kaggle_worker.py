"""The process that carries out calls of the `kaggle` client: a JSON request a line in, a JSON answer a line out.

The client has no time-outs, so `client.Kaggle` keeps one such process, kills it when a call takes too long, and
starts another.

    python -m stages.training.kaggle_worker                              requests on stdin, answers on stdout
    python -m stages.training.kaggle_worker follow OWNER/SLUG/N FILE S   append a running kernel's log to FILE

A request is {"operation": name, "arguments": {...}}, an answer {"result": ...} or {"error": {...}} (see
`failures.CallError`).
"""

import json
import os
import sys


def serve() -> None:
    """Answer requests until they end.

    Both streams are taken away from the client before it is imported: it prints to stdout, and its `exit()` closes
    stdin though it is then caught.
    """
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    api = None
    for line in requests:
        request = json.loads(line)
        try:
            from stages.training import kaggle_calls as calls
        except ImportError as error:  # the client, or what it needs and does not ask for, is not installed
            answer = {"error": {"kind": "client", "message": f"{error}; run `make venv`"}}
        else:
            try:
                api = api or calls.signed_in()
                answer = {"result": calls.OPERATIONS[request["operation"]](api, **request["arguments"])}
            except (Exception, SystemExit) as error:  # every failure is an answer; the driver judges it
                answer = {"error": calls.describe(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["follow"]:
        from stages.training.kaggle_calls import follow

        follow(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    else:
        serve()
