-- What reaches the inside of a transform besides ops: functions with gradients of their own,
-- changes in place, state, settings of tensors; and batches without entries.
-- Read next: func_spec.lua, core/transform/function.c.
local nyx = require "nyx"
local func = nyx.func

local function T(values) return nyx.tensor(values, { dtype = "float64" }) end

local function same(expected, t)
  assert.are.same(expected, t:totable())
end

local function near(expected, t)
  local difference = (T(expected) - t):abs():amax():item()
  assert.is_true(difference < 1e-12, tostring(t))
end

local function fails(text, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  assert.matches(text, message, 1, true)
end

-- Its gradient is not that of its values, so that it is seen which of them is taken.
local Tenfold = nyx.Function("tenfold", {
  forward = function(ctx, x)
    ctx:save_for_backward(x)
    return x * x
  end,
  backward = function(ctx, g)
    local x = ctx:saved_tensors()
    return g * x * 10
  end,
})
local Exp = nyx.Function("exp", {
  forward = function(ctx, x)
    local y = x:exp()
    ctx:save_for_backward(y)
    return y
  end,
  backward = function(ctx, g)
    local y = ctx:saved_tensors()
    return g * y
  end,
})
local Scale = nyx.Function("scale", { -- two tensors and a number, two results
  forward = function(ctx, x, w, k)
    ctx:save_for_backward(x, w)
    ctx.k = k
    return x * w * k, w + 1
  end,
  backward = function(ctx, g, h)
    local x, w = ctx:saved_tensors()
    return g * w * ctx.k, g * x * ctx.k + h
  end,
})

describe("nyx.Function inside a transform", function()
  local x = T { 1, 2, 3 }

  it("has its own gradient in vmap, around and inside", function()
    local each = func.vmap(func.grad(function(e) return Tenfold(e) end))
    same({ 10, 20, 30 }, each(x))
    local whole = func.grad(function(v) return func.vmap(Tenfold)(v):sum() end)
    same({ 10, 20, 30 }, whole(x))
    local nested = func.vmap(func.vmap(func.grad(Tenfold)))
    same({ { 10, 20 }, { 30, 40 } }, nested(T { { 1, 2 }, { 3, 4 } }))
  end)

  it("has it in forward mode", function()
    local function along(f, v)
      return select(2, func.jvp(f, { v }, { nyx.ones_like(v) }))
    end
    same({ 10, 20, 30 }, along(Tenfold, x))
    same({ 10, 20, 30 }, along(function(v) return func.vmap(Tenfold)(v) end, x))
    same({ 10, 20, 30 }, func.vmap(function(e) return along(Tenfold, e) end)(x))
    local Straight = nyx.Function("straight", {
      forward = function(_, v) return v:round() end,
      backward = function(_, g) return g end,
    })
    same({ 1, 1, 1 }, along(Straight, x))
    local Constant = nyx.Function("constant", {
      forward = function() return T(7) end,
      backward = function(_, g) return g * 3 end,
    })
    local value, tangent = func.jvp(Constant, { T(1) }, { T(2) })
    assert.are.equal(7, value:item())
    assert.are.equal(6, tangent:item())
  end)

  it("has it at second and third order, in every mix of modes", function()
    local function loss(v) return Tenfold(v):sum() end
    same({ { 10, 0, 0 }, { 0, 10, 0 }, { 0, 0, 10 } }, func.hessian(loss)(x))
    same({ 10, 10, 10 }, (select(2, func.hvp(loss, { x }, { nyx.ones_like(x) }))))
    local at = T { 0.5, 1 }
    local e1, e2 = math.exp(0.5), math.exp(1)
    local third = func.grad(function(v)
      return func.hessian(function(u) return Exp(u):sum() end)(v):sum()
    end)
    near({ e1, e2 }, third(at))
    for _, outer in ipairs { func.jacrev, func.jacfwd } do
      for _, inner in ipairs { func.jacrev, func.jacfwd } do
        near({ { { e1, 0 }, { 0, 0 } }, { { 0, 0 }, { 0, e2 } } }, outer(inner(Exp))(at))
      end
    end
  end)

  it("takes several arguments and gives several results", function()
    local w = T { 4, 5, 6 }
    local function f(a, b) -- 2 a b + (b + 1)
      local y, z = Scale(a, b, 2)
      return y + z
    end
    local grads = func.vmap(func.grad(f, { argnums = { 1, 2 } }))(x, w)
    same({ 8, 10, 12 }, grads[1])
    same({ 3, 5, 7 }, grads[2])
    -- One of them the same for all entries: it gets the sum.
    local shared = func.grad(function(b)
      return func.vmap(f, { in_dims = { 1, false } })(x, b):sum()
    end)
    assert.are.equal(12 + 3, shared(T(4)):item())
    local _, tangent = func.jvp(f, { x, w }, { nyx.ones_like(x), false })
    same({ 8, 10, 12 }, tangent)
  end)

  it("gives each entry its gradient where the result is the same for all", function()
    local Constant = nyx.Function("constant", {
      forward = function() return T(1) end,
      backward = function(_, g) return g * 3 end,
    })
    same({ 4, 7, 10 }, func.vmap(func.grad(function(e) return Constant(e) * e end))(x))
  end)

  it("reaches captured tensors", function()
    local w = T { 1 }:requires_grad_()
    func.vmap(function(e) return Tenfold(w * e) end)(x):sum():backward()
    same({ 140 }, w.grad)
  end)

  it("runs forward only where nothing is differentiated", function()
    same({ 1, 4, 9 }, func.vmap(Tenfold)(x))
  end)

  it("lets module hooks work there", function()
    local m, calls = nyx.nn.Linear(2, 1, { bias = false }), 0
    local p = { weight = nyx.ones(1, 2) }
    local samples = func.vmap(func.grad(function(q, v)
      return func.functional_call(m, q, v):sum()
    end), { in_dims = { false, 1 } })
    m:register_full_backward_hook(function() calls = calls + 1 end)
    same({ { { 1, 2 } }, { { 3, 4 } } }, samples(p, nyx.tensor { { 1, 2 }, { 3, 4 } }).weight)
    assert.is_true(calls > 0)
  end)

  it("passes errors on and leaves no level open", function()
    local Bad = nyx.Function("bad", {
      forward = function(_, v) return v * 1 end,
      backward = function() error("no gradient today", 0) end,
    })
    fails("no gradient today", func.vmap(func.grad(Bad)), x)
    fails("no gradient today", func.jvp, Bad, { x }, { x })
    same({ 10, 20, 30 }, func.vmap(func.grad(Tenfold))(x))
  end)
end)

describe("inside a transform", function()
  it("values written in place have no tangent, whatever their dtype", function()
    local x, t = T { 1, 2, 3 }, T { 1, 1, 1 }
    local function tangent(change)
      return (select(2, func.jvp(function(v)
        local y = v * 2
        change(y)
        return y
      end, { x }, { t })))
    end
    same({ 0, 2, 2 }, tangent(function(y) y[1] = 5 end))
    same({ 0, 0, 2 }, tangent(function(y)
      y[{ { 1, 2 } }] = nyx.tensor({ 7, 8 }, { dtype = "int64" })
    end))
    same({ 0, 0, 0 }, tangent(function(y) y:fill_(5) end))
    same({ 0, 0, 0 }, tangent(function(y)
      y:copy_(nyx.tensor({ 7, 8, 9 }, { dtype = "int64" }))
    end))
  end)

  it("tensors from outside are not changed by what has a tangent", function()
    local w = T { 1, 1 }:requires_grad_()
    local buffer = T { 0, 0 }
    local function try(change)
      fails("made outside of the function", func.jvp, function(v)
        change(v)
        return v
      end, { T { 1, 1 } }, { T { 1, 1 } })
    end
    try(function(v) w:add_(v) end)
    try(function(v) nyx.no_grad(function() w:add_(v) end) end)
    try(function(v) buffer:add_(v) end)
    try(function(v)
      local y = w * 2
      y:retain_grad()
      y:add_(v)
    end)
    same({ 2, 2 }, (w * 2):detach()) -- they are as they were
    same({ 0, 0 }, buffer * 2)
    local _, tangent = func.jvp(function(v)
      local made = nyx.zeros_like(v)
      made:add_(v)
      return made
    end, { T { 1, 1 } }, { T { 3, 4 } })
    same({ 3, 4 }, tangent)
  end)

  it("the second of two results stays that when it gets a tangent", function()
    local x, t = T { 1, 2, 3 }, T { 2, 3, 4 }
    local grad = func.grad(function(w)
      local value = func.jvp(function(u)
        local _, z = Scale(x, w, 2) -- w + 1
        z:mul_(u)
        return z
      end, { t }, { t })
      return value:sum()
    end)
    same({ 2, 3, 4 }, grad(x))
  end)

  it("settings of tensors are refused where they could not be kept", function()
    fails("cannot be set with a tensor inside a transform", func.vmap(function(v)
      (v * 1):requires_grad_(true)
    end), T { 1, 2 })
    local w = T { 1, 1 }:requires_grad_()
    fails("cannot be set with a tensor inside a transform", func.vmap(function(v)
      w.grad = v
      return v
    end), T { { 1, 2 }, { 3, 4 } })
    fails("register_hook: the tensor is inside a transform", func.vmap(func.grad(function(v)
      local y = v * v
      y:register_hook(print)
      return y
    end)), T { 1, 2 })
  end)

  it("ops without a gradient say so instead of giving zero", function()
    local g = T { 1, 1 }
    fails("sgd_step: an input requires a gradient, which this op does not give", func.jvp,
      function(v) return nyx.sgd_step(T { 1, 1 }, v, { lr = 1 }) end, { g }, { g })
    fails("sgd_step: an input requires a gradient, which this op does not give",
      nyx.sgd_step, T { 1, 1 }, g:clone():requires_grad_(), { lr = 1 })
  end)

  it("state that all entries share is not updated entry by entry", function()
    local momentum = T(0)
    fails("the same for all entries of a vmap", func.vmap(function(p, g)
      return nyx.sgd_step(p, g, momentum, { lr = 1, momentum = 0.9 })
    end), T { 1, 1 }, T { 1, 10 })
    assert.are.equal(0, momentum:item())
  end)

  it("batches without entries have shapes, or an error", function()
    local empty = nyx.zeros(0, 3, 2)
    assert.are.same({ 0, 6 }, func.vmap(function(v) return v:view(-1) end)(empty).shape)
    for _, op in ipairs { "nonzero", "unique" } do
      fails("an empty vmap has none", func.vmap(function(v) return v[op](v) end), empty)
    end
    fails("an empty vmap has none", func.vmap(function(v) return v:masked_select(v:gt(0)) end),
      empty)
    local labels = nyx.zeros({ 0, 3 }, { dtype = "int64" })
    assert.has_error(function() func.vmap(nyx.one_hot)(labels) end)
    assert.are.same({ 0, 3, 4 },
      func.vmap(function(v) return nyx.one_hot(v, { num_classes = 4 }) end)(labels).shape)
  end)

  it("gradients are taken in inference mode too", function()
    local x = T { 1, 2 }
    local function cubes(v) return (v * v * v):sum() end
    nyx.inference_mode(function()
      same({ 3, 12 }, func.grad(cubes)(x))
      same({ { 6, 0 }, { 0, 12 } }, func.hessian(cubes)(x))
      same({ { 3, 0 }, { 0, 12 } }, func.jacrev(function(v) return v * v * v end)(x))
      local _, pullback = func.vjp(function(v) return v * v end, x)
      same({ 2, 4 }, pullback(T { 1, 1 }))
      assert.is_false(nyx.is_grad_enabled())
    end)
  end)

  it("anomaly mode looks at every entry", function()
    local function roots(v) return v:sqrt() end
    same({ { 0.5, 0 }, { 0, 0.25 } }, nyx.detect_anomaly(function()
      return func.jacrev(roots)(T { 1, 4 })
    end))
    fails("gave nan", nyx.detect_anomaly, function()
      return func.jacrev(function(v) return (v * 0):sqrt() * v end)(T { 1, 0 })
    end)
  end)
end)
