// The row of pointers, filled from the functions of the other lanes_*.inl.
#pragma once

#include "kernels/cpu/lanes_attention.inl"
#include "kernels/cpu/lanes_bf16.inl"
#include "kernels/cpu/lanes_bytes.inl"
#include "kernels/cpu/lanes_int8.inl"
#include "kernels/cpu/lanes_matmul.inl"
#include "kernels/cpu/lanes_rows.inl"

namespace nibble {
namespace {

// Constant-initialized: no code of this ISA may run before the CPU was asked.
constexpr IsaTable MakeIsaTable(const char* name) {
  IsaTable table = {};
  table.name = name;
  table.four_bit = FourBit;
  table.four_bit_straddling = FourBitStraddling;
  table.half = Half;
  table.int8 = Int8;
  table.int8_input = Int8Input;
  table.four_bit_bf16 = FourBitBf16;
  table.half_bf16 = HalfBf16;
  table.bf16_input = Bf16Input;
  table.four_bit_int8 = FourBitInt8;
  table.byte_input = ByteInput;
  table.rms_norm = RmsNorm;
  table.layer_norm = LayerNorm;
  table.silu_mul = SiluMul;
  table.gelu = Gelu;
  table.convert = Convert;
  table.store = StoreRow;
  table.rope_angles = RopeAngles;
  table.rope_rotate = RopeRotate;
  table.attend = Attend;
  table.attend_merge = AttendMerge;
  table.attend_finish = AttendFinish;
  table.add = AddRow;
  table.divide = DivideRow;
  table.sum_squares = SumSquares;
  table.max_value = MaxValue;
  table.find = Find;
  table.exp_sums = ExpSums;
  table.lane_maxima = LaneMaxima;
  table.select = Select;
  return table;
}

}  // namespace
}  // namespace nibble
