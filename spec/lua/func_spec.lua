-- nyx.func: the transforms as users meet them. Every op under them is spec/op/transform_spec.
local nyx = require "nyx"

local func = nyx.func

local function T(values, options)
  options = options or {}
  options.dtype = "float64"
  return nyx.tensor(values, options)
end

local function near(a, b, tolerance)
  local x = type(a) == "number" and a or a:reshape(-1):totable()
  local y = type(b) == "number" and b or (nyx.is_tensor(b) and b:reshape(-1):totable() or b)
  if type(x) == "number" then x, y = { x }, { y } end
  assert.equal(#y, #x)
  for i = 1, #x do
    assert(math.abs(x[i] - y[i]) <= (tolerance or 1e-12) * math.max(1, math.abs(y[i])),
      ("element %d is %.17g, expected %.17g"):format(i, x[i], y[i]))
  end
end

local function fails(pattern, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  assert(tostring(message):find(pattern, 1, true), "the message is: " .. tostring(message))
end

local function cubes(x) return (x * x * x):sum() end

describe("func.grad", function()
  it("differentiates by the first argument, leaving it as it was", function()
    local x = T { 1, 2, 3 }
    near(func.grad(cubes)(x), { 3, 12, 27 })
    assert.is_false(x.requires_grad)
    assert.is_nil(x.grad)
  end)

  it("differentiates by other arguments, lists of them and tables of tensors", function()
    local f = function(a, b) return (a * b.w * b.w):sum() end
    local a, b = T { 1, 2 }, { w = T { 3, 4 }, name = "x" }
    near(func.grad(f, { argnums = 2 })(a, b).w, { 6, 16 })
    local both = func.grad(f, { argnums = { 1, 2 } })(a, b)
    near(both[1], { 9, 16 })
    near(both[2].w, { 6, 16 })
    assert.equal("x", both[2].name)
  end)

  it("gives zeros where the result does not depend on an argument", function()
    near(func.grad(function(_, b) return b:sum() end)(T { 1, 2 }, T { 3 }), { 0, 0 })
    near(func.grad(function() return T(1) end)(T { 1, 2 }), { 0, 0 })
  end)

  it("nests to any order", function()
    local f = function(x) return x:pow(4):sum() end
    near(func.grad(function(x) return func.grad(f)(x):sum() end)(T { 2 }), { 48 })
    near(func.grad(func.grad(func.grad(f)))(T { 2 }), { 48 })
  end)

  it("does not confuse the variables of nested functions", function()
    -- d/dx (x * d/dy (x + y)) = 1 (Siskind and Pearlmutter 2005)
    local d = func.grad(function(x)
      return x * func.grad(function(y) return x + y end)(T(1))
    end)(T(2))
    near(d, { 1 })
    local _, along = func.jvp(function(x)
      local _, inner = func.jvp(function(y) return x + y end, { T(1) }, { T(1) })
      return x * inner
    end, { T(2) }, { T(1) })
    near(along, { 1 })
  end)

  it("stays connected to what f captures", function()
    local w = T({ 2 }, { requires_grad = true })
    local g = func.grad(function(x) return (w * x * x):sum() end)(T { 3 })
    near(g, { 12 })
    g:sum():backward()
    near(w.grad, { 6 })
    local plain = func.grad(cubes)(T { 3 })
    assert.is_false(plain.requires_grad)
  end)

  it("stays connected to its own arguments where they require gradients", function()
    local x = T({ 2 }, { requires_grad = true })
    func.grad(cubes)(x):sum():backward()
    near(x.grad, { 12 })
  end)

  it("works under no_grad, and gives results without history there", function()
    local w = T({ 2 }, { requires_grad = true })
    local g = nyx.no_grad(function()
      return func.grad(function(x) return (w * x * x):sum() end)(T { 3 })
    end)
    near(g, { 12 })
    assert.is_false(g.requires_grad)
  end)

  it("passes auxiliary results on, and values, without history", function()
    local f = function(x) return (x * x):sum(), x * 2, "label" end
    local g, double, label = func.grad(f, { has_aux = true })(T { 3 })
    near(g, { 6 })
    near(double, { 6 })
    assert.is_false(double.requires_grad)
    assert.equal("label", label)
    local value, grads, again = func.value_and_grad(f, { has_aux = true })(T { 3 })
    near(value, { 9 })
    assert.is_false(value.requires_grad)
    near(grads, { 6 })
    near(again, { 6 })
  end)

  it("says what is wrong", function()
    fails("expected a function of tensors", func.grad, 3)
    fails("expected one element", func.grad(function(x) return x * 2 end), T { 1, 2 })
    fails("expected a tensor with one element", func.grad(function() return 1 end), T { 1 })
    fails("argnums names argument 2, the function got 1", func.grad(cubes, { argnums = 2 }),
      T { 1 })
    fails("argument 1 is number 3, expected a tensor", func.grad(cubes), 3)
    fails("unknown option 'argnum'", func.grad, cubes, { argnum = 1 })
    fails("int64", func.grad(cubes), nyx.tensor({ 1, 2 }, { dtype = "int64" }))
  end)
end)

describe("func.vjp and func.jvp", function()
  local function f(x, y) return x:sin() * y, { sum = (x + y):sum() } end

  it("multiply by the Jacobian from both sides", function()
    local x, y, v = T { 1, 2 }, T { 3, 4 }, T { 1, -1 }
    local out, pull = func.vjp(f, x, y)
    near(out, (x:sin() * y))
    assert.is_false(out.requires_grad)
    local gx, gy = pull(v)
    near(gx, x:cos() * y * v)
    near(gy, x:sin() * v)
    gx = pull(T { 0, 2 }) -- again
    near(gx, { 0, (x:cos() * y * 2):totable()[2] })
    local value, along, rest = func.jvp(f, { x, y }, { v, T { 0, 1 } })
    near(value, out)
    near(along, x:cos() * y * v + x:sin() * T { 0, 1 })
    near(rest.sum, { 10 })
  end)

  it("take trees, and no tangent as zero", function()
    local g = function(p) return { a = p.w * p.b, b = p.b * 2 } end
    local p = { w = T { 2 }, b = T { 5 } }
    local value, along = func.jvp(g, { p }, { { w = T { 1 }, b = T { 0 } } })
    near(value.a, { 10 })
    near(along.a, { 5 })
    near(along.b, { 0 })
    local _, dy = func.jvp(function(x, y) return x * y end, { T { 2 }, T { 3 } },
      { false, T { 1 } })
    near(dy, { 2 })
  end)

  it("change tensors in place", function()
    local g = function(x)
      local y = x * 1
      y[1] = x[2] * x[2]
      y:narrow(1, 2, 1):mul_(3)
      local z = nyx.zeros(2, { dtype = "float64" })
      z[2] = x[1]
      return y + z
    end
    local value, along = func.jvp(g, { T { 2, 5 } }, { T { 1, 10 } })
    near(value, { 25, 17 })
    near(along, { 100, 31 })
    near(func.jacfwd(g)(T { 2, 5 }), { 0, 10, 1, 3 })
  end)

  it("treat what is detached as constant", function()
    local _, along = func.jvp(function(x) return x * x:detach() end, { T { 3 } }, { T { 1 } })
    near(along, { 3 })
  end)

  it("can be differentiated in reverse, and by captured variables", function()
    local w = T({ 2 }, { requires_grad = true })
    local _, along = func.jvp(function(x) return w * x * x end, { T { 3 } }, { T { 1 } })
    near(along, { 12 })
    along:sum():backward()
    near(w.grad, { 6 })
  end)

  it("say what is wrong", function()
    fails("shape", func.jvp, cubes, { T { 1, 2 } }, { T { 1 } })
    fails("there is a tangent for argument 2", func.jvp, cubes, { T { 1 } }, { T { 1 }, T { 1 } })
    local _, pull = func.vjp(function(x) return x * 2 end, T { 1, 2 })
    fails("shape", pull, T { 1, 2, 3 })
    fails("the pullback got 0 tensors, expected 1", pull)
  end)

  it("end with their function: a dual kept beyond it is an error", function()
    local kept
    func.jvp(function(x)
      kept = x
      return x * 2
    end, { T { 1 } }, { T { 1 } })
    fails("after the transform has ended", function() return kept + 1 end)
    local ok = pcall(func.jvp, function() error "no" end, { T { 1 } }, { T { 1 } })
    assert.is_false(ok)
    near(func.grad(cubes)(T { 1 }), { 3 }) -- nothing is left open
  end)
end)

describe("func.vmap", function()
  it("maps chosen dimensions in and out", function()
    local x, y = T { { 1, 2, 3 }, { 4, 5, 6 } }, T { 10, 20, 30 }
    local add = function(a, b) return a + b end
    near(func.vmap(add, { in_dims = { 1, false } })(x, y), x + y)
    near(func.vmap(add, { in_dims = { 2, 1 } })(x, y), (x + y):transpose(1, 2))
    near(func.vmap(add, { in_dims = { 2, 1 }, out_dims = 2 })(x, y), x + y)
    near(func.vmap(function(a) return a:sum() end)(x), { 6, 15 })
    near(func.vmap(function(a) return a:sum() end, { in_dims = -1 })(x), { 5, 7, 9 })
    near(func.vmap(function(a) return a * 2, { s = a:max() } end)(x), x * 2)
  end)

  it("maps trees, by one dimension or a tree of them", function()
    local p = { w = T { { 1, 2 }, { 3, 4 } }, b = T { 10, 20 } }
    local f = function(t) return (t.w * 1):sum() + t.b end
    near(func.vmap(f)(p), { 13, 27 })
    local shared = { w = p.w, b = T(5) }
    near(func.vmap(f, { in_dims = { { w = 1, b = false } } })(shared), { 8, 12 })
  end)

  it("nests", function()
    local x, y = T { 1, 2 }, T { 10, 20, 30 }
    local outer = func.vmap(function(a)
      return func.vmap(function(b) return a * b end)(y)
    end)(x)
    near(outer, { 10, 20, 30, 20, 40, 60 })
  end)

  it("gives gradients of each sample", function()
    local w = T { { 1, -1 }, { 0.5, 2 } }
    local x, y = T { { 1, 2 }, { 3, 4 }, { 5, 6 } }, nyx.tensor({ 1, 2, 1 }, { dtype = "int64" })
    local function loss(weight, sample, label)
      return sample:matmul(weight):cross_entropy(label)
    end
    local each = func.vmap(func.grad(loss), { in_dims = { false, 1, 1 } })(w, x, y)
    assert.same({ 3, 2, 2 }, each.shape)
    for i = 1, 3 do near(each[i], func.grad(loss)(w, x[i], y[i])) end
    local chunked = func.vmap(func.grad(loss), { in_dims = { false, 1, 1 }, chunk_size = 2 })
    near(chunked(w, x, y), each)
  end)

  it("carries gradients through to what lies outside", function()
    local w = T({ 1, 2 }, { requires_grad = true })
    local x = T { { 1, 2 }, { 3, 4 } }
    func.vmap(function(a) return (a * w * w):sum() end)(x):sum():backward()
    near(w.grad, { 8, 24 })
  end)

  it("changes mapped tensors in place, and only those", function()
    local x = T { { 1, 2 }, { 3, 4 } }
    local f = function(a)
      local b = a * 1
      b[1] = b[2] * 10
      b:add_(1)
      return b
    end
    near(func.vmap(f)(x), { 21, 3, 41, 5 })
    near(x, { 1, 2, 3, 4 })
    local shared = T { 0, 0 }
    fails("the same for all entries", func.vmap(function(a) shared:add_(a) end), x)
    near(shared, { 0, 0 })
  end)

  it("runs ops without a rule entry by entry, the same for all where nothing is mapped", function()
    local x = T { { 3, 1, 2 }, { 9, 8, 7 } }
    near(func.vmap(function(a) return a:take(nyx.tensor({ 3, 1 }, { dtype = "int64" })) end)(x),
      { 2, 3, 7, 9 })
    fails("results of different shapes",
      func.vmap(function(a) return a:masked_select(a:gt(2)) end), x)
  end)

  it("takes an empty batch", function()
    local y = func.vmap(function(a) return (a * 2):sum() end)(nyx.zeros({ 0, 3 }))
    assert.same({ 0 }, y.shape)
  end)

  it("says what is wrong", function()
    local x = T { { 1, 2 }, { 3, 4 } }
    fails("no argument has a mapped dimension", func.vmap(cubes, { in_dims = { false } }), x)
    fails("in_dims names dimension 3", func.vmap(cubes, { in_dims = 3 }), x)
    fails("not 2 as those of the others", func.vmap(function(a, b) return a + b end), x,
      T { 1, 2, 3 })
    fails("has a value for every entry", func.vmap(function(a) return a:sum():item() end), x)
    fails("use nyx.func.grad", func.vmap(function(a)
      local b = a:detach()
      b.requires_grad = true
      b:sum():backward()
      return b
    end), x)
  end)
end)

describe("func.jacobian, hessian and hvp", function()
  local A = T { { 1, 2, 0 }, { 0, 3, -1 } }
  local f = function(x) return A:matmul(x):sin() end
  local x = T { 0.3, -0.2, 0.5 }
  local expected = A:matmul(x):cos():unsqueeze(2) * A

  it("agree in both modes, and choose the cheaper one", function()
    near(func.jacrev(f)(x), expected)
    near(func.jacfwd(f)(x), expected)
    near(func.jacobian(f)(x), expected)
    near(func.jacobian(f, { mode = "forward", chunk_size = 2 })(x), expected)
    near(func.jacobian(f, { mode = "reverse", chunk_size = 1 })(x), expected)
  end)

  it("have the shape of the result, then of the argument", function()
    local g = function(a, b) return a:unsqueeze(2) * b.w end
    local a, b = T { 1, 2 }, { w = T { { 1, 2, 3 } } }
    assert.same({ 2, 3, 2 }, func.jacobian(g)(a, b).shape)
    local both = func.jacobian(g, { argnums = { 1, 2 } })(a, b)
    assert.same({ 2, 3, 1, 3 }, both[2].w.shape)
    near(both[2].w:sum({ 1, 2 }), { 3, 3, 3 })
    near(func.jacfwd(g, { argnums = 2 })(a, b).w, both[2].w)
  end)

  it("give second derivatives in every combination of modes", function()
    local g = function(v) return (f(v) * f(v)):sum() end
    local h = func.hessian(g)(x)
    near(func.jacrev(func.jacrev(g))(x), h)
    near(func.jacfwd(func.jacfwd(g))(x), h)
    near(func.jacrev(func.jacfwd(g))(x), h)
    near(h, h:transpose(1, 2))
    local v = T { 1, -2, 0.5 }
    local value, product = func.hvp(g, { x }, { v })
    near(value, g(x))
    near(product, h:matmul(v))
    local step = 1e-5
    near((func.grad(g)(x + v * step) - func.grad(g)(x - v * step)) / (2 * step), product, 1e-8)
  end)

  it("map over batches, inside and outside", function()
    local batch = T { { 0.1, 0.2, 0.3 }, { 1, 0, -1 } }
    local each = func.vmap(func.jacobian(f))(batch)
    near(each[1], func.jacobian(f)(batch[1]))
    near(each[2], func.jacfwd(f)(batch[2]))
    local hessians = func.vmap(func.hessian(function(v) return f(v):sum() end))(batch)
    near(hessians[2], func.hessian(function(v) return f(v):sum() end)(batch[2]))
    local whole = func.jacrev(func.vmap(f))(batch)
    assert.same({ 2, 2, 2, 3 }, whole.shape)
    near(whole[1]:select(2, 1), each[1])
    near(whole[1]:select(2, 2), nyx.zeros({ 2, 3 }))
  end)
end)

describe("func.functional_call", function()
  local nn = nyx.nn
  local net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)):to("float64")
  local parameters = {}
  for name, p in net:named_parameters() do parameters[name] = p:detach():clone() end

  it("runs a module with other parameters and puts its own back", function()
    local x = nyx.randn(5, 3, { dtype = "float64" })
    near(func.functional_call(net, parameters, x), net(x))
    local zeros = {}
    for name, p in pairs(parameters) do zeros[name] = nyx.zeros_like(p) end
    near(func.functional_call(net, zeros, x), { 0, 0, 0, 0, 0 })
    assert.equal(4, #net:parameters())
    fails("no parameter or buffer '9.weight'", func.functional_call, net, { ["9.weight"] = x }, x)
    fails("takes 3", func.functional_call, net, parameters, nyx.zeros { 5, 2 })
    near(net(x), func.functional_call(net, parameters, x))
  end)

  it("gives per-sample gradients of a model", function()
    local x, y = nyx.randn(6, 3, { dtype = "float64" }), nyx.randn(6, 1, { dtype = "float64" })
    local loss = function(p, a, b)
      local e = func.functional_call(net, p, a) - b
      return (e * e):sum()
    end
    local each = func.vmap(func.grad(loss), { in_dims = { false, 1, 1 } })(parameters, x, y)
    local whole = func.grad(loss)(parameters, x, y)
    for name, g in pairs(whole) do near(each[name]:sum(1), g, 1e-10) end
  end)
end)
