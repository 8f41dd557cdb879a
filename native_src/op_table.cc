#include "op_table.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "gil_scope.h"

namespace jaxtorch {
namespace {

struct Table {
  std::mutex mutex;  // never held while the GIL is taken, so the two cannot deadlock
  std::unordered_map<std::string, std::weak_ptr<Op>> ops;
};

// Leaked on purpose: executables may outlive static destruction.
Table& TheTable() {
  static Table* table = new Table;
  return *table;
}

// `a@1/0123456789abcdef~2/vjp~3` -> `a@1/0123456789abcdef/vjp`; a name may hold anything itself.
std::string WithoutNumbers(const std::string& key) {
  const size_t digest = std::min(key.find('/', key.find('@')), key.size());
  std::string result = key.substr(0, digest);
  bool number = false;
  for (size_t i = digest; i < key.size(); ++i) {
    number = key[i] == '~' || (number && key[i] >= '0' && key[i] <= '9');
    if (!number) result += key[i];
  }
  return result;
}

}  // namespace

Op::~Op() {
  OpTable::Forget(key);
  GilScope gil;
  // At interpreter exit the references go with the process; touching them could crash.
  if (!gil.held()) {
    run.release();
    run_in_context.release();
    fault.release();
    closure.release();
    return;
  }
  run.reset();
  run_in_context.reset();
  fault.reset();
  closure.reset();
}

std::shared_ptr<Op> OpTable::Insert(const std::string& key) {
  // Made before the lock is taken, so that it ends after: its end takes the lock as well.
  auto op = std::make_shared<Op>();
  Table& table = TheTable();
  std::lock_guard<std::mutex> lock(table.mutex);
  std::weak_ptr<Op>& slot = table.ops[key];
  if (!slot.expired()) return nullptr;  // `op` has no key yet: its end forgets nothing
  op->key = key;
  slot = op;
  return op;
}

std::shared_ptr<Op> OpTable::Find(const std::string& key) {
  Table& table = TheTable();
  std::lock_guard<std::mutex> lock(table.mutex);
  auto found = table.ops.find(key);
  return found == table.ops.end() ? nullptr : found->second.lock();
}

std::vector<std::string> OpTable::Keys() {
  std::vector<std::string> keys;
  Table& table = TheTable();
  std::lock_guard<std::mutex> lock(table.mutex);
  for (const auto& [key, op] : table.ops) {
    // No `lock()` here: the last reference could end in this loop, and its end takes the mutex.
    if (!op.expired()) keys.push_back(key);
  }
  std::sort(keys.begin(), keys.end());
  return keys;
}

std::shared_ptr<Op> OpTable::FindAlike(const std::string& key) {
  if (std::shared_ptr<Op> found = Find(key)) return found;
  for (const std::string& one : Keys()) {
    if (one.find('~') != std::string::npos && WithoutNumbers(one) == key) return Find(one);
  }
  return nullptr;
}

bool OpTable::HasDouble(const std::string& key) {
  // `name@version/` and 16 digits; what follows is the number or says what was derived.
  const size_t digest = key.find('/', key.find('@'));
  if (digest == std::string::npos) return false;
  const std::string numbered = key.substr(0, digest + 17) + "#";
  const std::vector<std::string> keys = Keys();
  auto found = std::lower_bound(keys.begin(), keys.end(), numbered);
  return found != keys.end() && found->compare(0, numbered.size(), numbered) == 0;
}

void OpTable::Forget(const std::string& key) {
  Table& table = TheTable();
  std::lock_guard<std::mutex> lock(table.mutex);
  auto found = table.ops.find(key);
  // A newer op may have taken the key between our last reference and this line.
  if (found != table.ops.end() && found->second.expired()) table.ops.erase(found);
}

}  // namespace jaxtorch
