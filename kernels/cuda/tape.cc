// Entries as tape.h's grammar says. Every byte is written or zero, so equal steps have equal bytes.
#include "kernels/cuda/tape.h"

#include <cstring>

namespace nibble::cuda {
namespace {

struct EntryHead {
  uint64_t kind;
  uint64_t bytes;  // head and body
};

struct KernelBody {
  const void* kernel;
  InvokeKernel invoke;
  Dim3 grid;
  Dim3 block;
  uint32_t shared_bytes;
  uint32_t dependent;
  uint64_t num_args;
};

struct ArgPlace {
  uint32_t offset;  // from the body's begin
  uint32_t bytes;
};

constexpr size_t RoundUp(size_t bytes, size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

absl::Status PlayKernel(const std::byte* body, Stream* stream) {
  KernelBody head;
  std::memcpy(&head, body, sizeof(head));
  ArgPlace places[kMaxArgs];
  std::memcpy(places, body + sizeof(head), head.num_args * sizeof(ArgPlace));
  void* args[kMaxArgs];
  size_t sizes[kMaxArgs];
  for (size_t i = 0; i < head.num_args; ++i) {
    args[i] = const_cast<std::byte*>(body + places[i].offset);
    sizes[i] = places[i].bytes;
  }
  const KernelCall call = {
      head.kernel, head.invoke, head.grid, head.block, {head.shared_bytes, head.dependent != 0}};
  return IssueKernel(call, args, sizes, head.num_args, stream);
}

}  // namespace

std::byte* Tape::Append(Kind kind, size_t body_bytes) {
  // Arguments are aligned to 16 within the tape, and its memory is at least so aligned.
  const size_t bytes = RoundUp(sizeof(EntryHead) + body_bytes, 16);
  const size_t at = bytes_.size();
  bytes_.resize(at + bytes);
  const EntryHead head = {static_cast<uint64_t>(kind), bytes};
  std::memcpy(bytes_.data() + at, &head, sizeof(head));
  ++num_entries_;
  return bytes_.data() + at + sizeof(head);
}

void AppendKernel(Tape* tape, const KernelCall& call, const void* const* args, const size_t* sizes,
                  size_t num_args) {
  // A grid without blocks does nothing.
  if (call.grid.x == 0 || call.grid.y == 0 || call.grid.z == 0) return;
  size_t end = RoundUp(sizeof(KernelBody) + num_args * sizeof(ArgPlace), 16);
  ArgPlace places[kMaxArgs];
  for (size_t i = 0; i < num_args; ++i) {
    places[i] = {static_cast<uint32_t>(end), static_cast<uint32_t>(sizes[i])};
    end = RoundUp(end + sizes[i], 16);
  }
  std::byte* const body = tape->Append(Tape::Kind::kKernel, end);
  const KernelBody head = {call.kernel,
                           call.invoke,
                           call.grid,
                           call.block,
                           call.options.shared_bytes,
                           call.options.dependent ? 1u : 0u,
                           num_args};
  std::memcpy(body, &head, sizeof(head));
  std::memcpy(body + sizeof(head), places, num_args * sizeof(ArgPlace));
  for (size_t i = 0; i < num_args; ++i) std::memcpy(body + places[i].offset, args[i], sizes[i]);
}

void Tape::AddGemm(const GemmCall& call) {
  std::memcpy(Append(Kind::kGemm, sizeof(call)), &call, sizeof(call));
}

void Tape::AddCopy(void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  const CopyBody body = {to, from, bytes, 0};
  std::memcpy(Append(Kind::kCopy, sizeof(body)), &body, sizeof(body));
}

void Tape::AddFill(void* device, uint8_t value, int64_t bytes) {
  if (bytes == 0) return;
  const CopyBody body = {device, nullptr, bytes, value};
  std::memcpy(Append(Kind::kFill, sizeof(body)), &body, sizeof(body));
}

void Tape::ResizeFirstCopy(int64_t bytes) {
  std::memcpy(bytes_.data() + sizeof(EntryHead) + offsetof(CopyBody, bytes), &bytes, sizeof(bytes));
}

void Tape::Clear() {
  bytes_.clear();
  num_entries_ = 0;
}

absl::Status Tape::Play(Stream* stream) const {
  for (size_t at = 0; at < bytes_.size();) {
    EntryHead head;
    std::memcpy(&head, bytes_.data() + at, sizeof(head));
    const std::byte* const body = bytes_.data() + at + sizeof(head);
    absl::Status status;
    CopyBody copy;
    GemmCall gemm;
    switch (static_cast<Kind>(head.kind)) {
      case Kind::kKernel:
        status = PlayKernel(body, stream);
        break;
      case Kind::kGemm:
        std::memcpy(&gemm, body, sizeof(gemm));
        status = IssueGemm(gemm, stream);
        break;
      case Kind::kCopy:
        std::memcpy(&copy, body, sizeof(copy));
        status = Copy(copy.to, copy.from, copy.bytes, stream);
        break;
      case Kind::kFill:
        std::memcpy(&copy, body, sizeof(copy));
        status = Fill(copy.to, static_cast<uint8_t>(copy.value), copy.bytes, stream);
        break;
    }
    if (!status.ok()) return status;
    at += head.bytes;
  }
  return absl::OkStatus();
}

uint64_t Tape::Hash() const {
  // Entries are multiples of 16 bytes. Two chains, so that one multiplication need not wait for
  // the other.
  uint64_t even = 0x9e3779b97f4a7c15, odd = even;
  const auto mix = [](uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0xff51afd7ed558ccd;
    return hash ^ (hash >> 32);
  };
  for (size_t at = 0; at < bytes_.size(); at += 16) {
    uint64_t words[2];
    std::memcpy(words, bytes_.data() + at, sizeof(words));
    even = mix(even, words[0]);
    odd = mix(odd, words[1]);
  }
  return mix(even, odd);
}

}  // namespace nibble::cuda
