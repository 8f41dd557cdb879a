// A vector of fixed size whose first elements need no allocation: most calls have few operands.
#pragma once

#include <cstddef>
#include <memory>

namespace jaxtorch {

template <typename T, size_t kInline = 8>
class FewOrMany {
 public:
  explicit FewOrMany(size_t size) : size_(size) {
    if (size > kInline) many_ = std::make_unique<T[]>(size);
  }
  size_t size() const { return size_; }
  T* data() { return many_ ? many_.get() : few_; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  T& operator[](size_t index) { return data()[index]; }

 private:
  size_t size_;
  T few_[kInline] = {};
  std::unique_ptr<T[]> many_;
};

}  // namespace jaxtorch
