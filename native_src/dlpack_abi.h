// The part of the DLPack 1.x C interface that the handler uses, written out so that no
// framework header is needed. Layout: DLPack 1.3, "DLPackExchangeAPI"; the fields used here
// stand at the same offsets in every 1.x release that has the table (1.2 and later).
#pragma once

#include <cstdint>

namespace jaxtorch {

enum DLDeviceType : int32_t {
  kDLCPU = 1,
  kDLCUDA = 2,
  kDLCUDAHost = 3,
  kDLROCM = 10,
  kDLCUDAManaged = 13
};

// Type codes; the float8 kinds came with DLPack 1.1.
enum DLTypeCode : uint8_t {
  kDLInt = 0,
  kDLUInt = 1,
  kDLFloat = 2,
  kDLBfloat = 4,
  kDLComplex = 5,
  kDLBool = 6,
  kDLFloat8E4M3FN = 10,
  kDLFloat8E4M3FNUZ = 11,
  kDLFloat8E5M2 = 12,
  kDLFloat8E5M2FNUZ = 13,
  kDLFloat8E8M0FNU = 14,
};

struct DLPackVersion {
  uint32_t major;
  uint32_t minor;
};

struct DLDevice {
  int32_t device_type;
  int32_t device_id;
};

struct DLDataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;

  bool operator==(const DLDataType& other) const {
    return code == other.code && bits == other.bits && lanes == other.lanes;
  }
  bool operator!=(const DLDataType& other) const { return !(*this == other); }
  int64_t size_bytes() const { return (static_cast<int64_t>(bits) * lanes + 7) / 8; }
};

struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; null means row-major
  uint64_t byte_offset;
};

struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned* self);
  uint64_t flags;
  DLTensor dl_tensor;
};

struct DLPackExchangeAPIHeader {
  DLPackVersion version;
  DLPackExchangeAPIHeader* prev_api;
};

// Only two of the entries are called; the others hold their places.
struct DLPackExchangeAPI {
  DLPackExchangeAPIHeader header;
  void* managed_tensor_allocator;
  void* managed_tensor_from_py_object_no_sync;
  // Takes over `tensor` when it succeeds; returns 0, or -1 with a Python exception set.
  int (*managed_tensor_to_py_object_no_sync)(DLManagedTensorVersioned* tensor,
                                             void** out_py_object);
  // Describes a tensor without owning it; the pointers hold as long as the tensor lives.
  int (*dltensor_from_py_object_no_sync)(void* py_object, DLTensor* out);
  void* current_work_stream;
};

}  // namespace jaxtorch
