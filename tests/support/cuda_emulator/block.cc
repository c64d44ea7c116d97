// The scheduler of a block's threads, and their meetings. A thread that has nothing to wait for
// runs on; one that waits hands its core to another by chance.
#include "tests/support/cuda_emulator/block.h"

#include <cstring>
#include <string>
#include <utility>

namespace nibble::cuda::emulator {
namespace {

Block* running = nullptr;
FiberStacks& Stacks() {
  static FiberStacks* const stacks = new FiberStacks;
  return *stacks;
}

bool SamePoint(const Point& a, const Point& b) {
  return a.name == b.name && a.where.line() == b.where.line() &&
         (a.where.file_name() == b.where.file_name() ||
          std::strcmp(a.where.file_name(), b.where.file_name()) == 0);
}

std::string Text(const Point& point) {
  return std::string(point.name) + " at " + point.where.file_name() + ":" +
         std::to_string(point.where.line());
}

template <int kLanes>
void Complete(Block& block, Meeting<kLanes>& meeting) {
  if (meeting.action != nullptr) meeting.action(meeting.frames);
  Thread* woken[kLanes];
  int count = 0;
  for (Thread*& thread : meeting.threads) {
    if (thread != nullptr && thread != block.current) woken[count++] = thread;
    thread = nullptr;
  }
  for (void*& frame : meeting.frames) frame = nullptr;
  meeting.arrived = 0;
  block.WakeAll(woken, count);
}

template <int kLanes>
void Meet(Block& block, Meeting<kLanes>& meeting, const Point& point, void* frame, Action action) {
  Thread* const thread = block.current;
  if (meeting.arrived == 0) {
    meeting.point = point;
    meeting.action = action;
  } else if (!SamePoint(meeting.point, point)) {
    Die("lanes of one warp part: one is at %s, another waits at %s", Text(point).c_str(),
        Text(meeting.point).c_str());
  }
  const uint32_t lane = thread->number % kLanes;
  meeting.frames[lane] = frame;
  meeting.threads[lane] = thread;
  if (++meeting.arrived == meeting.live) {
    Complete(block, meeting);
    return;
  }
  thread->waits_at = point;
  block.Suspend();
}

// Leaves the last lane's own wake-up to nobody: it is the one that returns.
template <int kLanes>
void LeaveFor(Block& block, Meeting<kLanes>& meeting) {
  if (--meeting.live > 0 && meeting.arrived == meeting.live) Complete(block, meeting);
}

}  // namespace

const Block* RunningBlock() { return running; }

Block& Running() {
  if (running == nullptr) Die("a kernel's instruction outside a kernel");
  return *running;
}

// --- threads ---

void Block::WakeAll(Thread* const* woken, int count) {
  if (count == 0) return;
  // Any odd stride visits every place of a power of two once.
  uint32_t size = 1;
  while (size < static_cast<uint32_t>(count)) size *= 2;
  const uint64_t draw = random.Next();
  const uint32_t stride = static_cast<uint32_t>(draw >> 32) | 1;
  uint32_t at = static_cast<uint32_t>(draw >> 8);
  for (uint32_t i = 0; i < size; ++i, at += stride) {
    const uint32_t place = at & (size - 1);
    if (place < static_cast<uint32_t>(count)) Wake(woken[place]);
  }
}

Thread* Block::NextThread() {
  if (!bulk_copies.empty()) ProgressBulkCopies(*this, num_ready_ == 0);
  while (num_ready_ == 0) {
    if (!ProgressBulkCopies(*this, true) && !RunPrevious()) Deadlock();
  }
  if (!depth_first_) std::swap(ready_[random.Below(num_ready_)], ready_[num_ready_ - 1]);
  return ready_[--num_ready_];
}

void Block::Enter(Thread* thread) {
  current = thread;
  threadIdx = thread->index;
  if (!thread->started) {
    thread->stack = Stacks().Take();
    thread->sp = thread->stack.Begin(&RunThreads);
  }
}

void Block::Suspend() {
  Thread* const self = current;
  Thread* const next = NextThread();
  if (next == self) return;
  Enter(next);
  SwitchFiber(&self->sp, next->sp);
}

// Where a fresh stack begins: runs threads that have not started until the next one has a stack.
void Block::RunThreads() {
  Block& block = *running;
  for (;;) {
    Thread* const self = block.current;
    self->started = true;
    block.call->invoke(block.call->kernel, block.args_);
    block.Finish(self);
    void* ignored;
    if (block.num_live == 0) {
      Stacks().Give(self->stack);
      SwitchFiber(&ignored, block.main_sp_);
    }
    Thread* const next = block.NextThread();
    if (next->started) {
      Stacks().Give(self->stack);
      block.Enter(next);
      SwitchFiber(&ignored, next->sp);
    }
    next->stack = self->stack;
    block.current = next;
    threadIdx = next->index;
  }
}

void Block::Finish(Thread* thread) {
  FinishCopies(*thread);
  if (!thread->wgmmas.empty()) Die("a thread returns before WgmmaWait<0>()");
  if (!barriers[0].threads.empty()) {
    Die("a thread returns while another waits at %s", Text(barriers[0].point).c_str());
  }
  thread->done = true;
  --num_live;
  LeaveFor(*this, warps[thread->number / 32]);
  LeaveFor(*this, warpgroups[thread->number / 128]);
}

void Block::Deadlock() {
  const Thread* first = &threads.front();
  while (first->done) ++first;
  for (const Thread& thread : threads) {
    if (thread.done || SamePoint(first->waits_at, thread.waits_at)) continue;
    Die("deadlock: thread %u waits at %s, thread %u at %s", first->number,
        Text(first->waits_at).c_str(), thread.number, Text(thread.waits_at).c_str());
  }
  Die("deadlock: %d threads, thread %u among them, wait at %s", num_live, first->number,
      Text(first->waits_at).c_str());
}

// --- meetings ---

void MeetWarp(const Point& point, unsigned mask, void* frame, Action action) {
  Block& block = Running();
  const uint32_t warp = block.current->number / 32;
  for (uint32_t lane = 0; mask != ~0u && lane < 32; ++lane) {
    const uint32_t number = warp * 32 + lane;
    if (number < block.threads.size() && !block.threads[number].done && !(mask >> lane & 1)) {
      Die("%s's mask %08x leaves out lane %u, which has not returned", point.name, mask, lane);
    }
  }
  Meet(block, block.warps[warp], point, frame, action);
}

void MeetWholeWarp(const Point& point, void* frame, Action action) {
  Block& block = Running();
  Meeting<32>& warp = block.warps[block.current->number / 32];
  if (warp.live != 32) Die("%s in a warp of %d live lanes", point.name, warp.live);
  Meet(block, warp, point, frame, action);
}

void MeetWarpgroup(const Point& point, void* frame, Action action) {
  Block& block = Running();
  Meeting<128>& group = block.warpgroups[block.current->number / 128];
  if (group.live != 128) Die("%s in a warpgroup of %d live lanes", point.name, group.live);
  Meet(block, group, point, frame, action);
}

static void MeetAt(Block& block, NamedMeeting& meeting, const Point& point) {
  Thread* const thread = block.current;
  meeting.threads.push_back(thread);
  if (meeting.threads.size() < static_cast<size_t>(meeting.expected)) {
    thread->waits_at = point;
    block.Suspend();
    return;
  }
  meeting.threads.pop_back();
  if (block.async_fence) TakeSnapshot(block);
  block.WakeAll(meeting.threads.data(), static_cast<int>(meeting.threads.size()));
  meeting.threads.clear();
}

void MeetBlock(const Point& point) {
  Block& block = Running();
  NamedMeeting& meeting = block.barriers[0];
  if (static_cast<size_t>(block.num_live) != block.threads.size()) {
    Die("%s after a thread of the block has returned", point.name);
  }
  if (meeting.threads.empty()) {
    meeting.point = point;
    meeting.expected = block.num_live;
  } else if (!SamePoint(meeting.point, point)) {
    Die("divergent barrier: %s while others wait at %s", Text(point).c_str(),
        Text(meeting.point).c_str());
  }
  MeetAt(block, meeting, point);
}

void MeetNamed(const Point& point, int id, int threads) {
  Block& block = Running();
  if (id < 1 || id > 15) Die("NamedBarrier %d: the ids are 1 to 15", id);
  if (threads <= 0 || threads % 32 != 0) Die("NamedBarrier of %d threads", threads);
  NamedMeeting& meeting = block.barriers[id];
  if (meeting.threads.empty()) {
    meeting.point = point;
    meeting.expected = threads;
  } else if (meeting.expected != threads) {
    Die("NamedBarrier %d of %d threads, others expect %d", id, threads, meeting.expected);
  }
  MeetAt(block, meeting, point);
}

// --- dependent launches ---

void WaitForPrevious(const Point& point) { Running().WaitForPrevious(point); }

void Block::WaitForPrevious(const Point& point) {
  waited_for_previous_ = true;
  if (previous_ == nullptr) return;
  waiting_for_previous_.push_back(current);
  current->waits_at = point;
  Suspend();
}

bool Block::RunPrevious() {
  if (previous_ == nullptr) return false;
  const std::function<void()>& run = *std::exchange(previous_, nullptr);
  const uint3 indices[] = {threadIdx, blockIdx, blockDim, gridDim};
  run();
  threadIdx = indices[0];
  blockIdx = indices[1];
  blockDim = indices[2];
  gridDim = indices[3];
  WakeAll(waiting_for_previous_.data(), static_cast<int>(waiting_for_previous_.size()));
  waiting_for_previous_.clear();
  return true;
}

// --- one block ---

void Block::OrderThreads() {
  const uint32_t count = static_cast<uint32_t>(threads.size());
  ready_.resize(count);
  num_ready_ = 0;
  for (Thread& thread : threads) ready_[num_ready_++] = &thread;
  // Depth first: one warp runs as far as it can before the next begins.
  const uint32_t unit = depth_first_ ? 32 : 1;
  for (uint32_t begin = 0; depth_first_ && begin < count; begin += 32) {
    const uint32_t lanes = count - begin < 32 ? count - begin : 32;
    for (uint32_t i = lanes; i > 1; --i) {
      std::swap(ready_[begin + i - 1], ready_[begin + random.Below(i)]);
    }
  }
  if (!depth_first_ || count % 32 != 0) return;
  for (uint32_t i = count / unit; i > 1; --i) {
    const uint32_t other = random.Below(i);
    if (other == i - 1) continue;
    std::swap_ranges(ready_.begin() + (i - 1) * unit, ready_.begin() + i * unit,
                     ready_.begin() + other * unit);
  }
}

void Block::Reset(const KernelCall& kernel_call, uint3 index, uint64_t seed) {
  random = Random(seed);
  const uint64_t draw = random.Next();
  depth_first_ = (draw >> 20 & 1) != 0;
  delay = static_cast<Delay>((draw >> 24) % 3);
  call = &kernel_call;
  blockIdx = index;
  const uint3 size = {kernel_call.block.x, kernel_call.block.y, kernel_call.block.z};
  const uint32_t count = size.x * size.y * size.z;
  threads.resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    Thread& thread = threads[i];
    thread.number = i;
    thread.index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    thread.started = false;
    thread.done = false;
    thread.wgmma_fenced = false;
    thread.wgmma_groups = 0;
  }
  warps.assign((count + 31) / 32, {});
  warpgroups.assign((count + 127) / 128, {});
  for (uint32_t i = 0; i < count; ++i) {
    ++warps[i / 32].live;
    ++warpgroups[i / 128].live;
  }
  num_live = static_cast<int>(count);
  waited_for_previous_ = false;
  OrderThreads();
}

void Block::Run(const KernelCall& kernel_call, void* const* args, uint3 index, uint64_t seed) {
  Block* const outer = running;
  running = this;
  args_ = args;
  Reset(kernel_call, index, seed);
  BeginShared(*this, kernel_call.options.shared_bytes);
  Enter(NextThread());
  SwitchFiber(&main_sp_, current->sp);
  CheckEnd();
  running = outer;
}

void Block::CheckEnd() {
  for (const NamedMeeting& meeting : barriers) {
    if (meeting.threads.empty()) continue;
    Die("the block ends while threads wait at %s", Text(meeting.point).c_str());
  }
  while (ProgressBulkCopies(*this, true) || RunPrevious()) {
  }
  mbarriers.clear();
  EndShared(*this);
  if (call->options.dependent && !waited_for_previous_) {
    Die("a dependent kernel never calls WaitForPreviousKernel");
  }
}

}  // namespace nibble::cuda::emulator
