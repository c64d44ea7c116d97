// Asks the CPU what it has, and Linux for the tiles of AMX.
#include "kernels/cpu/isa.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace nibble {
namespace {

struct Isa {
  const IsaTable* table;
  bool supported;
};

// Tiles are state that Linux gives a process on request, from 5.16 on; where it does not, the first
// tile instruction would end the process.
bool LinuxGrantsTiles() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
}

// GCC says so only if the operating system saves tiles.
bool CpuHasTiles() {
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
         __builtin_cpu_supports("amx-int8");
}

std::vector<Isa> AllIsas() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const bool avx512_vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  const bool avx512_bf16 = avx512_vnni && __builtin_cpu_supports("avx512bf16");
  return {{&kScalarTable, true},
          {&kAvx2Table, avx2},
          {&kAvx2VnniTable, avx2 && __builtin_cpu_supports("avxvnni")},
          {&kAvx512Table, avx512},
          {&kAvx512VnniTable, avx512_vnni},
          {&kAvx512Bf16Table, avx512_bf16},
          {&kAmxTable, avx512_bf16 && CpuHasTiles() && LinuxGrantsTiles()}};
}

}  // namespace

std::vector<std::string> IsaNames() {
  std::vector<std::string> names;
  for (const Isa& isa : AllIsas()) names.push_back(isa.table->name);
  return names;
}

std::vector<const IsaTable*> SupportedIsas() {
  std::vector<const IsaTable*> tables;
  for (const Isa& isa : AllIsas()) {
    if (isa.supported) tables.push_back(isa.table);
  }
  return tables;
}

absl::StatusOr<const IsaTable*> ChooseIsa(const std::string& asked) {
  const std::string name = asked.empty() ? NIBBLE_CPU_ISA : asked;
  if (name.empty()) return SupportedIsas().back();
  for (const Isa& isa : AllIsas()) {
    if (name != isa.table->name) continue;
    if (isa.supported) return isa.table;
    return absl::InvalidArgumentError(absl::StrCat("cpu-isa: this CPU has no \"", name,
                                                   "\"; its best is \"",
                                                   SupportedIsas().back()->name, "\""));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("cpu-isa: got \"", name, "\", want ", absl::StrJoin(IsaNames(), ", ")));
}

Compute AutoCompute(const IsaTable& isa) {
  __builtin_cpu_init();
  const bool fast_bf16 =
      &isa == &kAmxTable || (&isa == &kAvx512Bf16Table && __builtin_cpu_is("amd"));
  return fast_bf16 ? Compute::kBf16 : Compute::kFp32;
}

}  // namespace nibble
