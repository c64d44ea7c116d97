// Operations that treat each row by itself. Equations, shapes and what may alias:
// kernels/backend.h. Every function appends its launches to a tape. Sums run in one fixed order
// that depends only on the row's width, so a row's result does not depend on the rows beside it.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_tables.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sequences.h"
#include "kernels/pooling.h"
#include "kernels/tensor.h"
#include "kernels/weight.h"

namespace nibble::cuda {

void RmsNorm(Tape* tape, const Activations& x, const VectorView& weight, float eps,
             const Activations& out);
void LayerNorm(Tape* tape, const Activations& x, const Activations& residual,
               const VectorView& weight, const VectorView& bias, float eps, const Activations& out);
// ids: device [out.rows]. The table is packed, of any form; `tables` are the 4-bit formats'.
void Embedding(Tape* tape, const DeviceTables& tables, const Weight& table, const int32_t* ids,
               bool accumulate, const Activations& out);
void SiluMul(Tape* tape, const Activations& gate, const Activations& up, const Activations& out);
void Gelu(Tape* tape, const Activations& x, bool tanh_form);
// rows: device [out.rows].
void GatherRows(Tape* tape, const Activations& x, const int32_t* rows, const Activations& out);
void Pool(Tape* tape, const Activations& x, const DeviceSequences& sequences, Pooling pooling,
          bool normalize, const Activations& out);

}  // namespace nibble::cuda
