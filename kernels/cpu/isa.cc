// Asks the CPU what it has.
#include "kernels/cpu/isa.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

struct Isa {
  const IsaTable* table;
  bool supported;
};

std::vector<Isa> AllIsas() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const bool avx512_bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  return {{&kScalarTable, true},
          {&kAvx2Table, avx2},
          {&kAvx512Table, avx512},
          {&kAvx512Bf16Table, avx512_bf16}};
}

}  // namespace

std::vector<const IsaTable*> SupportedIsas() {
  std::vector<const IsaTable*> tables;
  for (const Isa& isa : AllIsas()) {
    if (isa.supported) tables.push_back(isa.table);
  }
  return tables;
}

absl::StatusOr<const IsaTable*> ChooseIsa(const std::string& name) {
  if (name.empty()) return SupportedIsas().back();
  for (const Isa& isa : AllIsas()) {
    if (name != isa.table->name) continue;
    if (isa.supported) return isa.table;
    return absl::InvalidArgumentError(absl::StrCat("cpu-isa: this CPU has no \"", name,
                                                   "\"; its best is \"",
                                                   SupportedIsas().back()->name, "\""));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("cpu-isa: got \"", name, "\", want scalar, avx2, avx512 or avx512_bf16"));
}

Compute AutoCompute(const IsaTable& isa) {
  __builtin_cpu_init();
  return &isa == &kAvx512Bf16Table && __builtin_cpu_is("amd") ? Compute::kBf16 : Compute::kFp32;
}

}  // namespace nibble
