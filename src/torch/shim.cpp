// A C interface to the parts of libtorch that tch 0.24 does not expose. `shim.rs` is the only caller.
//
// Tensors come in as pointers to at::Tensor (tch's C_tensor). Nothing throws across the boundary: a call that
// fails returns its bad value and leaves the message in salmon_shim_error() of the same thread.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>
#include <cmath>
#include <string>
#include <vector>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace {
thread_local std::string message;

template <typename T, typename F>
T guarded(T bad, F body) {
  try {
    return body();
  } catch (const std::exception& error) {
    message = error.what();
  } catch (...) {
    message = "unknown C++ exception";
  }
  return bad;
}

std::vector<at::Tensor> list(void* const* tensors, size_t count) {
  std::vector<at::Tensor> out;
  out.reserve(count);
  for (size_t i = 0; i < count; i++) out.push_back(*static_cast<at::Tensor*>(tensors[i]));
  return out;
}

// Flushes denormals on this thread while it lives: the moments of rows without a gradient decay into them, and
// denormal arithmetic is a hundred times slower.
struct FlushDenormals {
#if defined(__SSE2__)
  unsigned int saved = _mm_getcsr();
  FlushDenormals() { _mm_setcsr(saved | 0x8040u); }
  ~FlushDenormals() { _mm_setcsr(saved); }
#endif
};

// What a caller computes in a backward pass: from the gradient of an output to that of its input. `call` gives a
// tensor of its own, or null where it failed and left its message in `message_out`; `drop` ends `state`.
typedef void* (*BackwardCall)(void* state, void* gradient, char* message_out, size_t room);
typedef void (*BackwardDrop)(void* state);

struct CallerNode : torch::autograd::Node {
  void* state;
  BackwardCall call;
  BackwardDrop drop;
  CallerNode(void* state, BackwardCall call, BackwardDrop drop) : state(state), call(call), drop(drop) {}
  ~CallerNode() override { release_variables(); }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    if (state == nullptr) throw std::runtime_error("the graph was freed by an earlier backward pass");
    if (!gradients[0].defined()) return {at::Tensor()};
    char text[512] = "";
    auto* result = static_cast<at::Tensor*>(call(state, &gradients[0], text, sizeof text));
    if (result == nullptr) throw std::runtime_error(text);
    at::Tensor input_gradient = std::move(*result);
    delete result;
    return {std::move(input_gradient)};
  }

  void release_variables() override {
    if (state != nullptr) drop(state);
    state = nullptr;
  }
};
}  // namespace

extern "C" {
// Makes `output`, which was computed without a graph, a function of `input` whose backward pass is `call`. Owns
// `state` from here on, also where it fails.
int salmon_with_backward(void* input, void* output, void* state, BackwardCall call, BackwardDrop drop) {
  return guarded(1, [&] {
    std::shared_ptr<CallerNode> node(new CallerNode(state, call, drop), torch::autograd::deleteNode);
    node->set_next_edges(torch::autograd::collect_next_edges(*static_cast<at::Tensor*>(input)));
    torch::autograd::create_gradient_edge(*static_cast<at::Tensor*>(output), node);
    return 0;
  });
}

// Backward from `output`, whose gradient is given.
int salmon_backward(void* output, void* gradient) {
  return guarded(1, [&] {
    static_cast<at::Tensor*>(output)->backward(*static_cast<at::Tensor*>(gradient));
    return 0;
  });
}

// The MKL inside libtorch asks this before it uses AVX-512 and AVX2 code paths; it answers "no" on AMD
// processors, where they work as well. Defined in the program it takes the place of libtorch's own.
int mkl_serv_intel_cpu_true() { return 1; }

const char* salmon_shim_error() { return message.c_str(); }

int salmon_fused_adamw(size_t count, void* const* params, void* const* grads, void* const* first, void* const* second,
                       void* const* steps, double lr, double beta1, double beta2, double weight_decay, double eps) {
  return guarded(1, [&] {
    at::NoGradGuard no_grad;
    FlushDenormals flush;
    at::_fused_adamw_(list(params, count), list(grads, count), list(first, count), list(second, count), {},
                      list(steps, count), lr, beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
    return 0;
  });
}

// The Euclidean norm over all tensors, in f64 over their f32 norms; negative on failure.
double salmon_global_norm(size_t count, void* const* tensors) {
  return guarded(-1.0, [&] {
    at::NoGradGuard no_grad;
    double sum = 0.0;
    for (const at::Tensor& norm : at::_foreach_norm(list(tensors, count), 2)) {
      const double value = norm.item<double>();
      sum += value * value;
    }
    return std::sqrt(sum);
  });
}

int salmon_scale(size_t count, void* const* tensors, double factor) {
  return guarded(1, [&] {
    at::NoGradGuard no_grad;
    at::_foreach_mul_(list(tensors, count), factor);
    return 0;
  });
}

// Adds `from` to `into`, tensor by tensor, in place.
int salmon_add(size_t count, void* const* into, void* const* from) {
  return guarded(1, [&] {
    at::NoGradGuard no_grad;
    FlushDenormals flush;
    at::_foreach_add_(list(into, count), list(from, count));
    return 0;
  });
}

// The gradient of a leaf, which has none afterwards; an undefined tensor where there was none. Null on failure.
void* salmon_take_grad(void* leaf) {
  return guarded(static_cast<void*>(nullptr), [&]() -> void* {
    at::Tensor& grad = static_cast<at::Tensor*>(leaf)->mutable_grad();
    auto* taken = new at::Tensor(std::move(grad));
    grad = at::Tensor();
    return taken;
  });
}

// Of the calling thread; 1 where the processor can do it.
int salmon_flush_denormals(int on) {
  return guarded(0, [&] { return at::globalContext().setFlushDenormal(on != 0) ? 1 : 0; });
}
}
