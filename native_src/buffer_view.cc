#include "buffer_view.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <new>

#include "torch_api.h"

namespace jaxtorch {

namespace ffi = xla::ffi;

namespace {

struct DtypeNames {
  ffi::DataType xla;
  DLDataType dlpack;
};

constexpr DtypeNames kDtypes[] = {
    {ffi::DataType::PRED, {kDLBool, 8, 1}},
    {ffi::DataType::S8, {kDLInt, 8, 1}},
    {ffi::DataType::S16, {kDLInt, 16, 1}},
    {ffi::DataType::S32, {kDLInt, 32, 1}},
    {ffi::DataType::S64, {kDLInt, 64, 1}},
    {ffi::DataType::U8, {kDLUInt, 8, 1}},
    {ffi::DataType::U16, {kDLUInt, 16, 1}},
    {ffi::DataType::U32, {kDLUInt, 32, 1}},
    {ffi::DataType::U64, {kDLUInt, 64, 1}},
    {ffi::DataType::F16, {kDLFloat, 16, 1}},
    {ffi::DataType::F32, {kDLFloat, 32, 1}},
    {ffi::DataType::F64, {kDLFloat, 64, 1}},
    {ffi::DataType::BF16, {kDLBfloat, 16, 1}},
    {ffi::DataType::C64, {kDLComplex, 64, 1}},
    {ffi::DataType::C128, {kDLComplex, 128, 1}},
    {ffi::DataType::F8E4M3FN, {kDLFloat8E4M3FN, 8, 1}},
    {ffi::DataType::F8E4M3FNUZ, {kDLFloat8E4M3FNUZ, 8, 1}},
    {ffi::DataType::F8E5M2, {kDLFloat8E5M2, 8, 1}},
    {ffi::DataType::F8E5M2FNUZ, {kDLFloat8E5M2FNUZ, 8, 1}},
    {ffi::DataType::F8E8M0FNU, {kDLFloat8E8M0FNU, 8, 1}},
};

// By XLA's number of the dtype; no lanes where torch has no such dtype. A table, since a jump that
// the processor guesses wrong costs more than the rest of the look-up.
constexpr size_t kMostDtypes = 64;

constexpr std::array<DLDataType, kMostDtypes> ByNumber() {
  std::array<DLDataType, kMostDtypes> table{};
  for (const DtypeNames& names : kDtypes) table[static_cast<size_t>(names.xla)] = names.dlpack;
  return table;
}

constexpr std::array<DLDataType, kMostDtypes> kByNumber = ByNumber();

}  // namespace

std::optional<DLDataType> DlpackDtypeOf(ffi::DataType dtype) {
  const size_t number = static_cast<size_t>(dtype);
  if (number >= kMostDtypes || kByNumber[number].lanes == 0) return std::nullopt;
  return kByNumber[number];
}

// Shared by the call and by torch's storage: whichever ends last frees it. The shape follows the
// block in the same allocation.
struct BufferView::Block {
  DLManagedTensorVersioned managed{};
  std::atomic<bool> left{false};  // one of the two has ended; a view that asks finds: torch has
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

void BufferView::Free(Block* block) {
  const bool usual = block->managed.dl_tensor.ndim <= kUsualRank;
  block->~Block();
  if (!usual || !KeepSpare(block)) std::free(block);
}

void BufferView::Leave(Block* block) {
  if (block->left.exchange(true, std::memory_order_acq_rel)) Free(block);
}

void BufferView::Deleter(DLManagedTensorVersioned* managed) {
  Leave(static_cast<Block*>(managed->manager_ctx));
}

BufferView::~BufferView() {
  tensor_.reset();
  if (block_ == nullptr) return;
  if (released()) {
    Free(block_);  // as always but where a tensor has escaped, and cheaper than an exchange
  } else {
    Leave(block_);
  }
}

bool BufferView::released() const {
  return block_ == nullptr || block_->left.load(std::memory_order_acquire);
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
    // Whether torch has called the deleter or not: what failed holds nothing any more.
    Free(block);
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
