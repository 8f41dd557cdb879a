#include "buffer_view.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "torch_api.h"

namespace jaxtorch {

namespace ffi = xla::ffi;

std::optional<DLDataType> DlpackDtypeOf(ffi::DataType dtype) {
  switch (dtype) {
    case ffi::DataType::PRED: return DLDataType{kDLBool, 8, 1};
    case ffi::DataType::S8: return DLDataType{kDLInt, 8, 1};
    case ffi::DataType::S16: return DLDataType{kDLInt, 16, 1};
    case ffi::DataType::S32: return DLDataType{kDLInt, 32, 1};
    case ffi::DataType::S64: return DLDataType{kDLInt, 64, 1};
    case ffi::DataType::U8: return DLDataType{kDLUInt, 8, 1};
    case ffi::DataType::U16: return DLDataType{kDLUInt, 16, 1};
    case ffi::DataType::U32: return DLDataType{kDLUInt, 32, 1};
    case ffi::DataType::U64: return DLDataType{kDLUInt, 64, 1};
    case ffi::DataType::F16: return DLDataType{kDLFloat, 16, 1};
    case ffi::DataType::F32: return DLDataType{kDLFloat, 32, 1};
    case ffi::DataType::F64: return DLDataType{kDLFloat, 64, 1};
    case ffi::DataType::BF16: return DLDataType{kDLBfloat, 16, 1};
    case ffi::DataType::C64: return DLDataType{kDLComplex, 64, 1};
    case ffi::DataType::C128: return DLDataType{kDLComplex, 128, 1};
    case ffi::DataType::F8E4M3FN: return DLDataType{kDLFloat8E4M3FN, 8, 1};
    case ffi::DataType::F8E4M3FNUZ: return DLDataType{kDLFloat8E4M3FNUZ, 8, 1};
    case ffi::DataType::F8E5M2: return DLDataType{kDLFloat8E5M2, 8, 1};
    case ffi::DataType::F8E5M2FNUZ: return DLDataType{kDLFloat8E5M2FNUZ, 8, 1};
    case ffi::DataType::F8E8M0FNU: return DLDataType{kDLFloat8E8M0FNU, 8, 1};
    default: return std::nullopt;
  }
}

// Shared by the call and by torch's storage: whichever ends last frees it. The shape follows the
// block in the same allocation.
struct BufferView::Block {
  DLManagedTensorVersioned managed{};
  std::atomic<int> owners{2};
  std::atomic<bool> released{false};
};

namespace {

constexpr int32_t kUsualRank = 6;
constexpr size_t kMostSpare = 16;

// Blocks of usual rank that this thread needs no more, for its next views. Plain data, which can
// still be asked when the thread's other things are gone; a view may end as late as that.
struct SpareBlocks {
  void* blocks[kMostSpare];
  size_t count;
  bool closed;
};
thread_local SpareBlocks t_spare;

struct FreeSpareBlocks {
  ~FreeSpareBlocks() {
    while (t_spare.count > 0) std::free(t_spare.blocks[--t_spare.count]);
    t_spare.closed = true;
  }
};

bool KeepSpare(void* memory) {
  if (t_spare.closed || t_spare.count == kMostSpare) return false;
  thread_local FreeSpareBlocks at_the_end;
  (void)at_the_end;
  t_spare.blocks[t_spare.count++] = memory;
  return true;
}

}  // namespace

void* BufferView::Allocate(size_t rank) {
  if (rank <= kUsualRank) {
    if (t_spare.count > 0) return t_spare.blocks[--t_spare.count];
    rank = kUsualRank;
  }
  return std::malloc(sizeof(Block) + rank * sizeof(int64_t));
}

void BufferView::Unref(Block* block) {
  if (block->owners.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  const bool usual = block->managed.dl_tensor.ndim <= kUsualRank;
  block->~Block();
  if (!usual || !KeepSpare(block)) std::free(block);
}

void BufferView::Deleter(DLManagedTensorVersioned* managed) {
  Block* block = static_cast<Block*>(managed->manager_ctx);
  block->released.store(true, std::memory_order_release);
  Unref(block);
}

BufferView::~BufferView() {
  tensor_.reset();
  if (block_ != nullptr) Unref(block_);
}

bool BufferView::released() const {
  return block_ == nullptr || block_->released.load(std::memory_order_acquire);
}

bool BufferView::Open(const ffi::AnyBuffer& buffer, DLDevice device, DLDataType dtype) {
  ffi::AnyBuffer::Dimensions dims = buffer.dimensions();
  const size_t rank = dims.size();
  void* memory = Allocate(rank);
  if (memory == nullptr) {
    PyErr_NoMemory();
    return false;
  }
  Block* block = new (memory) Block;
  int64_t* shape = reinterpret_cast<int64_t*>(block + 1);
  std::copy(dims.begin(), dims.end(), shape);
  DLManagedTensorVersioned& managed = block->managed;
  // Up to DLPack 1.1 no strides mean row-major, as XLA's buffers are; torch makes these sooner.
  managed.version = {1, 0};
  managed.manager_ctx = block;
  managed.deleter = &BufferView::Deleter;
  managed.flags = 0;
  managed.dl_tensor =
      DLTensor{buffer.untyped_data(), device, static_cast<int32_t>(rank), dtype, shape, nullptr, 0};
  void* object = nullptr;
  if (g_torch.dlpack->managed_tensor_to_py_object_no_sync(&managed, &object) != 0) {
    // Torch did not take the tensor over, so its share of the block is ours to drop as well.
    if (!block->released.load(std::memory_order_acquire)) Unref(block);
    Unref(block);
    return false;
  }
  tensor_ = PyRef::Steal(static_cast<PyObject*>(object));
  block_ = block;
  return true;
}

bool IsRowMajor(const DLTensor& tensor) {
  if (tensor.strides == nullptr) return true;
  int64_t step = 1;
  for (int32_t i = tensor.ndim; i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != step) return false;
    step *= tensor.shape[i];
  }
  return true;
}

}  // namespace jaxtorch
