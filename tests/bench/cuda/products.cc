// The ways of a product as contenders.
#include "tests/bench/cuda/products.h"

#include <limits>

#include "kernels/four_bit.h"
#include "kernels/half.h"

namespace nibble::bench {

cuda::MatMulTable Forced(cuda::MatMulPath path, bool own_kernels) {
  constexpr int64_t kAll = std::numeric_limits<int64_t>::max();
  cuda::MatMulTable table = {};
  table.gpu = "";
  const auto set = [](int64_t(&bound)[2], bool on, int64_t rows) {
    bound[0] = bound[1] = on ? rows : 0;
  };
  set(table.stream_rows, path == cuda::MatMulPath::kStream, cuda::kMaxStreamRows);
  set(table.staged_rows, path == cuda::MatMulPath::kStaged, kAll);
  set(table.hopper_rows, path == cuda::MatMulPath::kHopper, kAll);
  set(table.general_rows, path == cuda::MatMulPath::kGeneral, kAll);
  set(table.sixteen_bit_rows, own_kernels, kAll);
  set(table.int8_rows, own_kernels, kAll);
  return table;
}

Products::Products(Machine* machine, int64_t max_rows, int64_t max_k)
    : machine_(machine),
      table_(cuda::TableFor(machine->traits().name, machine->traits().compute_major * 10 +
                                                        machine->traits().compute_minor)) {
  const auto upload = [&](const auto& values) {
    float* const device = machine->Make<float>(static_cast<int64_t>(values.size()));
    machine->Upload(device, values.data(), static_cast<int64_t>(values.size()) * 4);
    return device;
  };
  tables_ = {upload(Nf4Codebook()), upload(Fp4Codebook()), upload(DynamicMap())};
  BackendLimits limits;
  limits.max_rows = max_rows;
  limits.max_k = max_k;
  for (const bool exact : {false, true}) {
    scratch_bytes_[exact] = cuda::MatMulScratchBytes(machine->traits(), limits, exact);
    scratch_[exact] = machine->AllocateZeroed(scratch_bytes_[exact]);
  }
}

cuda::MatMulSetup Products::Setup(bool exact) const {
  cuda::MatMulSetup setup;
  setup.traits = &machine_->traits();
  setup.tables = tables_;
  setup.table = &table_;
  setup.exact = exact;
  setup.scratch = scratch_[exact];
  setup.scratch_bytes = scratch_bytes_[exact];
  return setup;
}

Contender Products::Ours(std::string name, const Copies& weights, const Activations& x, float* out,
                         const cuda::MatMulTable* table, bool batch_invariant) const {
  cuda::MatMulSetup setup = Setup(/*exact=*/false);
  if (table != nullptr) setup.table = table;
  setup.batch_invariant = batch_invariant;
  return {
      std::move(name), [setup, weights, x, out](int turn, cuda::Stream* stream) {
        const Weight& weight = weights.At(turn);
        const MatMulPart part = {&weight, {}, {out, x.rows, weight.spec.n, weight.spec.n}, false};
        cuda::Tape tape;
        cuda::MatMul(&tape, setup, x, {&part, 1});
        return tape.Play(stream);
      }};
}

Contender Products::OursExact(const Copies& weights, const Activations& x, float* out) const {
  return {
      "exact", [setup = Setup(/*exact=*/true), weights, x, out](int turn, cuda::Stream* stream) {
        const Weight& weight = weights.At(turn);
        const MatMulPart part = {&weight, {}, {out, x.rows, weight.spec.n, weight.spec.n}, false};
        cuda::Tape tape;
        cuda::MatMul(&tape, setup, x, {&part, 1});
        return tape.Play(stream);
      }};
}

Contender Products::Cublas(const Copies& weights, const void* x, int64_t m, float* out) const {
  return {"cublas", [weights, x, m, out](int turn, cuda::Stream* stream) {
            const Weight& weight = weights.At(turn);
            cuda::GemmCall call;
            call.type = cuda::GemmCall::Type::kBf16;
            call.m = m;
            call.n = weight.spec.n;
            call.k = weight.spec.k;
            call.x = x;
            call.x_stride = weight.spec.k;
            call.w = weight.codes;
            call.w_stride = weight.spec.k;
            call.out = out;
            call.out_stride = weight.spec.n;
            return cuda::IssueGemm(call, stream);
          }};
}

Contender Products::Peer(const BitsAndBytes& peer, std::vector<PeerMatrix> weights, const void* x,
                         int64_t m, float* out, void* scratch) const {
  return {"bitsandbytes", [&peer, weights, x, m, out, scratch](int turn, cuda::Stream* stream) {
            return peer.MatMul(weights[static_cast<size_t>(turn) % weights.size()], x, m, out,
                               scratch, stream);
          }};
}

std::vector<PeerMatrix> Products::RandomPeers(const Shape& shape) const {
  const int64_t values = shape.n * shape.k, bytes = values / 2 + values / 64 * 4;
  std::vector<PeerMatrix> matrices;
  for (int64_t total = 0; total < machine_->effort().rotate_bytes || matrices.size() < 2;
       total += bytes) {
    uint8_t* const codes = machine_->Make<uint8_t>(values / 2);
    float* const absmax = machine_->Make<float>(values / 64);
    machine_->Fill(codes, values / 2, Machine::Content::kBytes);
    machine_->Fill(absmax, values / 64 * 4, Machine::Content::kScales);
    matrices.push_back({codes, absmax, shape.n, shape.k});
  }
  return matrices;
}

const void* Products::AsBf16(const Activations& x) const {
  std::vector<float> values(static_cast<size_t>(x.rows * x.cols));
  machine_->Download(values.data(), x.data, x.rows * x.cols * 4);
  std::vector<uint16_t> halves(values.size());
  for (size_t i = 0; i < values.size(); ++i) halves[i] = F32ToBf16(values[i]);
  uint16_t* const device = machine_->Make<uint16_t>(x.rows * x.cols);
  machine_->Upload(device, halves.data(), x.rows * x.cols * 2);
  return device;
}

}  // namespace nibble::bench
