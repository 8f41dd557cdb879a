// A vector of fixed size whose first elements need no allocation: most calls have few operands.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace jaxtorch {

template <typename T, size_t kInline = 8>
class FewOrMany {
 public:
  explicit FewOrMany(size_t size) : size_(size) {
    if (size > kInline) {
      many_ = std::make_unique<T[]>(size);
      data_ = many_.get();
    } else {
      // No more are made than there are: a call is short enough for that to count.
      data_ = reinterpret_cast<T*>(few_);
      for (size_t i = 0; i < size; ++i) new (data_ + i) T();
    }
  }
  ~FewOrMany() {
    if (many_) return;
    for (size_t i = size_; i-- > 0;) data_[i].~T();
  }
  FewOrMany(const FewOrMany&) = delete;
  FewOrMany& operator=(const FewOrMany&) = delete;

  size_t size() const { return size_; }
  T* data() { return data_; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  T& operator[](size_t index) { return data_[index]; }

 private:
  size_t size_;
  T* data_;
  std::unique_ptr<T[]> many_;
  alignas(T) unsigned char few_[kInline * sizeof(T)];
};

}  // namespace jaxtorch
