#include "op_table.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>

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

}  // namespace

Op::~Op() {
  OpTable::Forget(key);
  // At interpreter exit the references go with the process; touching them could crash.
  if (PythonIsFinalizing() || !Py_IsInitialized()) {
    run.release();
    run_in_context.release();
    fault.release();
    return;
  }
  GilScope gil;
  run.reset();
  run_in_context.reset();
  fault.reset();
}

std::shared_ptr<Op> OpTable::Insert(const std::string& key) {
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
    if (!op.expired()) keys.push_back(key);
  }
  std::sort(keys.begin(), keys.end());
  return keys;
}

void OpTable::Forget(const std::string& key) {
  Table& table = TheTable();
  std::lock_guard<std::mutex> lock(table.mutex);
  auto found = table.ops.find(key);
  // A newer op may have taken the key between our last reference and this line.
  if (found != table.ops.end() && found->second.expired()) table.ops.erase(found);
}

}  // namespace jaxtorch
