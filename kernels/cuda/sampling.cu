// Which launches a step's sampling takes. Knows no arithmetic.
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/sampling_call.h"

namespace nibble::cuda {

int64_t SamplingScratchBytes(int64_t max_samples, int64_t vocab) {
  if (max_samples == 0) return 0;
  return ScratchOf(nullptr, GroupSize(max_samples, vocab), vocab).bytes;
}

void Sample(Tape* tape, const Activations& logits, const SamplingTask& task, char* scratch) {
  if (task.num_plans == 0) return;
  const int64_t vocab = logits.cols;
  const int64_t group = GroupSize(task.num_plans, vocab);
  SamplingCall call = {};
  call.biases = task.biases;
  call.counts = task.counts;
  call.banned = task.banned;
  call.tops = task.tops;
  call.logits = RowsOf(logits);
  call.vocab = vocab;
  call.scratch = ScratchOf(scratch, group, vocab);
  for (int64_t first = 0; first < task.num_plans; first += group) {
    const int64_t left = task.num_plans - first;
    const int64_t count = left < group ? left : group;
    call.plans = task.plans + first;
    call.sampled = task.sampled + first;
    LaunchPrepare(tape, call, count);
    if (task.greedy == 0) LaunchSums(tape, call, count);
    LaunchPick(tape, call, count, task.greedy != 0, task.max_top);
  }
}

}  // namespace nibble::cuda
