// Kernels are often local to their file, so the symbols that the dynamic linker knows do not do:
// the program's file is read (ELF, 64 bits).
#include "tests/support/cuda_emulator/kernel_name.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <vector>

namespace nibble::cuda::emulator {
namespace {

std::vector<char> ReadProgram() {
  std::ifstream file("/proc/self/exe", std::ios::binary | std::ios::ate);
  if (!file) return {};
  std::vector<char> bytes(static_cast<size_t>(file.tellg()));
  file.seekg(0);
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

template <typename T>
bool ReadAt(const std::vector<char>& bytes, uint64_t at, T* value) {
  if (at > bytes.size() || bytes.size() - at < sizeof(T)) return false;
  std::memcpy(value, bytes.data() + at, sizeof(T));
  return true;
}

// The name of the function at a virtual address; empty if there is none.
std::string FindFunction(const std::vector<char>& program, uint64_t address) {
  Elf64_Ehdr head;
  if (!ReadAt(program, 0, &head)) return "";
  for (uint64_t i = 0; i < head.e_shnum; ++i) {
    Elf64_Shdr symbols;
    Elf64_Shdr names;
    if (!ReadAt(program, head.e_shoff + i * sizeof(symbols), &symbols)) return "";
    if (symbols.sh_type != SHT_SYMTAB) continue;
    if (!ReadAt(program, head.e_shoff + symbols.sh_link * sizeof(names), &names)) return "";
    for (uint64_t at = 0; at < symbols.sh_size; at += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol;
      if (!ReadAt(program, symbols.sh_offset + at, &symbol)) return "";
      if (symbol.st_value != address || ELF64_ST_TYPE(symbol.st_info) != STT_FUNC) continue;
      const uint64_t name = names.sh_offset + symbol.st_name;
      return name < program.size() ? std::string(program.data() + name) : "";
    }
  }
  return "";
}

}  // namespace

std::string KernelName(const void* kernel) {
  const std::vector<char> program = ReadProgram();
  const uint64_t address = reinterpret_cast<uint64_t>(kernel);
  Dl_info program_place = {};
  dladdr(kernel, &program_place);
  const uint64_t base = reinterpret_cast<uint64_t>(program_place.dli_fbase);
  std::string name = FindFunction(program, address - base);
  if (name.empty()) name = FindFunction(program, address);
  if (name.empty()) {
    char text[32];
    std::snprintf(text, sizeof(text), "%p", kernel);
    return text;
  }
  int status = 0;
  char* const plain = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  if (plain == nullptr) return name;
  name = plain;
  std::free(plain);
  return name;
}

}  // namespace nibble::cuda::emulator
