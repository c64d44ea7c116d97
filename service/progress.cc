#include "service/progress.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "service/flags.h"

namespace nibble {

Progress::Progress(std::string label, std::FILE* out, bool is_terminal)
    : label_(std::move(label)), out_(out), is_terminal_(is_terminal) {}

Progress::~Progress() {
  if (line_open_) std::fputc('\n', out_);
}

void Progress::Update(int64_t done, int64_t all, absl::Time now) {
  if (started_ == absl::InfinitePast()) started_ = now;
  const absl::Duration elapsed = now - started_;
  if (elapsed < absl::Seconds(1)) return;
  const bool finished = all > 0 && done >= all && line_open_;
  const absl::Duration pause = is_terminal_ ? absl::Milliseconds(100) : absl::Seconds(2);
  if (!finished && now - drawn_ < pause) return;
  drawn_ = now;
  const double share = all > 0 ? static_cast<double>(done) / static_cast<double>(all) : 0;
  const double per_second = static_cast<double>(done) / absl::ToDoubleSeconds(elapsed);
  const std::string text =
      absl::StrFormat("%3.0f %%  %s of %s, %s/s", 100 * share, FormatBytes(done), FormatBytes(all),
                      FormatBytes(static_cast<int64_t>(per_second)));
  if (!is_terminal_) {
    absl::FPrintF(out_, "%s: %s\n", label_, text);
    return;
  }
  constexpr int kWidth = 28;
  const int filled = std::clamp(static_cast<int>(share * kWidth), 0, kWidth);
  absl::FPrintF(out_, "\r%s [%s%s] %s\033[K", label_, std::string(static_cast<size_t>(filled), '#'),
                std::string(static_cast<size_t>(kWidth - filled), '.'), text);
  std::fflush(out_);
  line_open_ = true;
}

}  // namespace nibble
