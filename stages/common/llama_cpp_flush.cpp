// Linked into each of llama.cpp's tools (llama_cpp.cmake). They log from a thread that nobody waits for when main
// returns (ggml-org/llama.cpp#22142, deliberate because of Windows), so the last lines, which are the results, were
// lost in 12 of 30 runs of llama-perplexity on a busy machine. Pausing the log drains it.
struct common_log;
common_log * common_log_main();
void common_log_pause(common_log * log);

namespace {
struct flush_at_exit {
    ~flush_at_exit() { common_log_pause(common_log_main()); }
} flush;
}  // namespace
