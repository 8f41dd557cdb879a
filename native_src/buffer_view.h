// XLA buffers as torch tensors, for the length of one call.
#pragma once

#include <optional>

#include "dlpack_abi.h"
#include "python_ref.h"
#include "xla/ffi/api/ffi.h"

namespace jaxtorch {

// DLPack's name for XLA's dtype, or nothing where torch has no such dtype.
std::optional<DLDataType> DlpackDtypeOf(xla::ffi::DataType dtype);

// A tensor over one XLA buffer. XLA owns the memory and takes it back when the handler returns,
// so whoever makes a view drops it before then and asks `released()`.
class BufferView {
 public:
  BufferView() = default;
  BufferView(BufferView&& other) noexcept
      : tensor_(std::move(other.tensor_)), block_(std::exchange(other.block_, nullptr)) {}
  BufferView(const BufferView&) = delete;
  ~BufferView();

  // False with a Python exception set when torch cannot represent the buffer.
  bool Open(const xla::ffi::AnyBuffer& buffer, DLDevice device, DLDataType dtype);

  PyObject* tensor() const { return tensor_.get(); }
  // Drops our reference. Torch's storage goes with it unless somebody kept the tensor.
  void DropTensor() { tensor_.reset(); }
  // True once torch has let go of the memory.
  bool released() const;

 private:
  struct Block;
  static void Deleter(DLManagedTensorVersioned* managed);
  static void Leave(Block* block);
  static void Free(Block* block);
  static void* Allocate(size_t rank);

  PyRef tensor_;
  Block* block_ = nullptr;
};

// Row-major and without gaps; strides of length-1 dimensions do not count.
bool IsRowMajor(const DLTensor& tensor);

}  // namespace jaxtorch
