#include "private_pools.h"

#include "gil_scope.h"
#include "torch_api.h"

namespace jaxtorch {

PrivatePools::~PrivatePools() {
  if (!dict_) return;
  GilScope gil;
  // At interpreter exit the memory goes with the process.
  if (gil.held()) {
    dict_.reset();
  } else {
    dict_.release();
  }
}

PyObject* PrivatePools::dict() {
  if (!dict_) dict_ = PyRef::Steal(PyDict_New());
  return dict_.get();
}

PoolScope::PoolScope(PyObject* pools, int32_t device) {
  if (pools == nullptr) return;
  token_ = PyRef::Steal(PyObject_CallFunction(g_torch.enter_pool, "Oi", pools, device));
  ok_ = static_cast<bool>(token_);
}

PoolScope::~PoolScope() {
  if (!token_) return;
  // What the call itself has raised is not lost.
  PyRef raised = TakeRaisedException();
  PyRef left = PyRef::Steal(PyObject_CallOneArg(g_torch.leave_pool, token_.get()));
  if (!left) PyErr_WriteUnraisable(g_torch.leave_pool);
  RestoreException(std::move(raised));
}

}  // namespace jaxtorch
