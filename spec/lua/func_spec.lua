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

  it("takes the arguments as given, whatever f writes into their tables", function()
    local f = function(p)
      p.w = p.w * 2
      p.extra = p.w
      return (p.w * p.w):sum()
    end
    local p = { w = T { 1, 2 } }
    local g = func.grad(f)(p)
    near(g.w, { 8, 16 })
    assert.is_nil(g.extra)
    assert.is_nil(p.extra)
    local _, pull = func.vjp(f, p)
    near(pull(T(1)).w, { 8, 16 })
  end)

  it("counts arguments from the end, too", function()
    local f = function(a, b) return (a * b):sum() end
    near(func.grad(f, { argnums = -1 })(T { 2 }, T { 3 }), { 2 })
    fails("argument 1 twice", func.grad(f, { argnums = { 1, -2 } }), T { 2 }, T { 3 })
    fails("names argument -3, the function got 2", func.grad(f, { argnums = -3 }), T { 2 }, T { 3 })
    fails("'argnums' has number 0, expected positions", func.grad(f, { argnums = 0 }), T { 2 })
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
    local cycle = { T { 1 } }
    cycle.self = cycle
    fails("func.grad: a table is nested more than 200 deep", func.grad(cubes), cycle)
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
    local _, _, further = func.vjp(f, x, y)
    near(further.sum, { 10 })
    assert.is_false(further.sum.requires_grad)
    local value, along, rest = func.jvp(f, { x, y }, { v, T { 0, 1 } })
    near(value, out)
    near(along, x:cos() * y * v + x:sin() * T { 0, 1 })
    near(rest.sum, { 10 })
  end)

  it("see a tangent that lies otherwise in another shape", function()
    local x = T { 1, 2, 3, 4 }:expand(3, 3, 4) -- turned, it is still rows that repeat
    local tangent = nyx.arange(36, { dtype = "float64" }):reshape(3, 3, 4)
    local value, along = func.jvp(function(y) return y:transpose(1, 2):reshape(9, 4) end,
      { x }, { tangent })
    near(value, x:reshape(9, 4))
    near(along, tangent:transpose(1, 2):contiguous():view(9, 4))
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

  it("match tangents and gradients to tensors by their places", function()
    local g = function(p) return { w = p.w * p.b, b = p.b } end
    local p = { w = T { 2 }, b = T { 5 } }
    local function along(tangent) return func.jvp(g, { p }, { tangent }) end
    fails("func.jvp: the tangent of argument 1 has a tensor at .weight, the argument has none",
      along, { weight = T { 1 }, zbias = T { 0 } })
    fails("the tangent of argument 1 is without it, but the argument has a tensor at .w", along,
      { b = T { 1 } })
    local _, pull = func.vjp(g, p)
    fails("func.vjp: what the pullback got has a tensor at .a, the result has none there", pull,
      { a = T { 1 }, b = T { 1 } })
    fails("func.jvp: the tangent of argument 1 has shape (1) and dtype float32, expected (1) and "
      .. "float64", func.jvp, cubes, { T { 1 } }, { nyx.ones(1) })
  end)

  it("linearize gives the derivative along several tangents", function()
    local value, push = func.linearize(function(x) return x * x end, T { 3 })
    near(value, { 9 })
    near(push(T { 1 }), { 6 })
    near(push(T { 2 }), { 12 })
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

  it("leaves results that are the same for all as they are", function()
    local x = T { { 1, 2 }, { 3, 4 } }
    local shared = T { 7 }
    local f = function(a) return a:sum(), shared end
    local sums, rest = func.vmap(f, { out_dims = { 1, false } })(x)
    near(sums, { 3, 7 })
    assert.same({ 1 }, rest.shape)
    rest = select(2, func.vmap(f, { out_dims = { 1, false }, chunk_size = 1 })(x))
    assert.same({ 1 }, rest.shape)
    fails("out_dims is false for result 1, which differs", func.vmap(f, { out_dims = false }), x)
  end)

  it("prints one entry as such", function()
    local text
    func.vmap(function(a)
      text = tostring(a)
      return a
    end)(T { { 1, 2 }, { 3, 4 }, { 5, 6 } })
    assert(text:find("size 2, the first of 3 entries of a batch]", 1, true), text)
    func.jvp(function(a)
      text = tostring(a)
      return a
    end, { T { 1 } }, { T { 1 } })
    assert(text:find(", with a tangent]", 1, true), text)
    nyx.lift.complex_level(function(level)
      text = tostring(nyx.lift.complex(level, T { 1 }, T { 2 }))
    end)
    assert(text:find("size 1, with an imaginary part]", 1, true), text)
  end)

  it("says what is wrong with in_dims and out_dims", function()
    local x = T { { 1, 2 }, { 3, 4 } }
    local f = function(a, b) return a + b end
    local p = { w = x, b = x }
    local g = function(t) return t.w end
    local function both(options) return func.vmap(f, options) end
    fails("func.vmap: in_dims is boolean true for all arguments", both, { in_dims = true })
    fails("func.vmap: in_dims is string '1' for all arguments", both, { in_dims = "1" })
    fails("func.vmap: in_dims is number 1.5", both, { in_dims = 1.5 })
    fails("func.vmap: out_dims is boolean true for all results", both, { out_dims = true })
    fails("func.vmap: out_dims is string 'last'", both, { out_dims = "last" })
    fails("func.vmap: out_dims is number 0", both, { out_dims = 0 })
    fails("func.vmap: in_dims has no entry 2, the function got 2", both { in_dims = { 1 } }, x, x)
    fails("func.vmap: in_dims has an entry '3', the function got 2", both { in_dims = { 1, 1, 1 } },
      x, x)
    fails("func.vmap: in_dims is boolean true for argument 1", both { in_dims = { true, 1 } }, x, x)
    fails("in_dims maps argument 2, which is number 3", both { in_dims = { 1, 1 } }, x, 3)
    fails("func.vmap: in_dims names 'weight' of argument 1, which has no such entry",
      func.vmap(g, { in_dims = { { weight = 1 } } }), p)
    fails("func.vmap: in_dims has a table for argument 1, which is a tensor",
      func.vmap(cubes, { in_dims = { { 1 } } }), x)
    fails("func.vmap: in_dims names dimension 9 of argument 1[w], which is a tensor of shape (2x2)",
      func.vmap(g, { in_dims = { { w = 9 } } }), p)
    fails("func.vmap: argument 2 is a tensor without dimensions", func.vmap(f), x, T(1))
    fails("func.vmap: out_dims names dimension 4 of result 1", func.vmap(f, { out_dims = 4 }), x, x)
    fails("func.vmap: out_dims has an entry '2', the function gave 1",
      func.vmap(f, { out_dims = { 1, false } }), x, x)
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

describe("random numbers in func", function()
  local x = nyx.ones(4, 3)
  local function draws(options, f)
    nyx.manual_seed(7)
    local y = func.vmap(f or function(a) return a * nyx.rand(3) end, options)(x)
    return y, nyx.rand(1):item()
  end

  it("are an error in vmap unless it is said what to draw", function()
    fails("rand: a random op inside vmap: say with its option randomness", draws)
    fails("dropout: a random op inside vmap", draws, nil, function(a) return a:dropout(0.5) end)
    fails("a random op inside vmap", draws, nil, function() return nyx.randperm(3) end)
    fails("'randomness' is string 'all', expected one of: error different same", draws,
      { randomness = "all" })
  end)

  it("are the same for all entries, in chunks too", function()
    for _, f in ipairs { function(a) return a * nyx.rand(3) end,
      function(a) return a:dropout(0.5) end, function(a) return a * nyx.randn_like(a) end,
      function(a) return a + nyx.randperm(3) end, function(a) return a:clone():normal_() end,
      function(a) return (a * 0.5):bernoulli() end, } do
      local y, after = draws({ randomness = "same" }, f)
      for e = 2, 4 do near(y[e], y[1]) end
      nyx.manual_seed(7)
      near(y[1], f(nyx.ones(3))) -- as without vmap
      near(after, nyx.rand(1):item())
      for chunk = 1, 3 do
        local z, rest = draws({ randomness = "same", chunk_size = chunk }, f)
        near(z, y)
        near(rest, after)
      end
    end
  end)

  it("differ between entries, with and without a mapped input", function()
    for _, f in ipairs { function(a) return a * nyx.rand(3) end,
      function(a) return a:dropout(0.5) * nyx.rand(3) end,
      function(a) return a + nyx.randperm(3) + nyx.rand(3) end,
      function(a) return nyx.full({ 3 }, 0.5):bernoulli() + a * nyx.randn(3) end,
      function(a) return a * nyx.rand(1) end } do
      for chunk = 2, 4, 2 do
        local y = draws({ randomness = "different", chunk_size = chunk }, f)
        assert.same({ 4, 3 }, y.shape)
        for e = 2, 4 do assert.is_false(y[e]:equal(y[1])) end
      end
    end
    fails("the same for all entries", draws, { randomness = "different" }, function(a)
      return a + nyx.zeros(3):normal_()
    end)
  end)

  it("follow each vmap of several", function()
    local function nested(outer, inner)
      return func.vmap(function(a)
        return func.vmap(function(b) return b + nyx.rand(1) end, { randomness = inner })(a)
      end, { randomness = outer })(nyx.zeros(2, 3))
    end
    local y = nested("same", "different")
    near(y[1], y[2])
    assert.is_false(y[1][1]:equal(y[1][2]))
    y = nested("different", "same")
    near(y[1], y[1][1]:expand(3, 1))
    assert.is_false(y[1]:equal(y[2]))
    fails("a random op inside vmap", nested, "error", "same")
    fails("a random op inside vmap", nested, "same", "error")
  end)

  it("give gradients of samples through dropout", function()
    local f = function(a) return (a:dropout(0.5) * a):sum() end
    local function sample(a) return func.grad(f)(a) end
    local y = draws({ randomness = "different" }, sample)
    for e = 1, 4 do
      for i = 1, 3 do
        local v = y[e][i]:item()
        assert(v == 0 or v == 4, tostring(v))
      end
    end
  end)

  it("make one function of f for jacobian and hessian", function()
    local f = function(a) return a:dropout(0.5) * 3 + nyx.rand(3) * a end
    local one = nyx.ones(3)
    local function seeded(transform, options)
      nyx.manual_seed(5)
      local y = transform(f, options)(one)
      return y, nyx.rand(1):item()
    end
    local forward, after = seeded(func.jacfwd)
    for _, transform in ipairs { func.jacrev, func.jacobian } do
      local y, rest = seeded(transform)
      near(y, forward, 1e-6)
      near(rest, after)
    end
    for chunk = 1, 2 do
      local y, rest = seeded(func.jacfwd, { chunk_size = chunk })
      near(y, forward, 1e-6)
      near(rest, after)
    end
    local pair = function(p) return nyx.rand(1) * (p.a * p.b) end
    nyx.manual_seed(6)
    local scale = nyx.rand(1):item()
    nyx.manual_seed(6)
    local j = func.jacfwd(pair)({ a = nyx.ones(1), b = nyx.ones(1) })
    near(j.a, { scale }, 1e-6)
    near(j.b, { scale }, 1e-6)
    nyx.manual_seed(6)
    near(func.hessian(function(a) return (a * a * nyx.rand(1)):sum() end)(nyx.ones(1)),
      { 2 * scale }, 1e-6)
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

  it("carry arguments that are no tensors along", function()
    local g = function(v, k) return (v * v * k):sum() end
    local value, products = func.hvp(g, { T { 1, 2 }, 3 }, { T { 1, 0 } })
    near(value, { 15 })
    near(products[1], { 6, 0 })
    assert.is_false(products[2])
    fails("func.hvp: the function returned", func.hvp, function(v) return v * 2 end,
      { T { 1, 2 } }, { T { 1, 2 } })
    fails("func.hvp: none of the primals is a tensor", func.hvp, g, { 1, 2 }, {})
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

  it("replaces tied weights everywhere", function()
    local tied = nn.Sequential(nn.Linear(2, 2, { bias = false }), nn.Linear(2, 2, { bias = false }))
    tied[2].weight = tied[1].weight
    local double = { ["1.weight"] = nyx.eye(2) * 2 }
    near(func.functional_call(tied, double, nyx.ones(1, 2)), { 4, 4 })
    double = { ["2.weight"] = nyx.eye(2) * 3 }
    near(func.functional_call(tied, double, nyx.ones(1, 2)), { 9, 9 })
    fails("'1.weight' and '2.weight' are one tensor in the module and two in the parameters",
      func.functional_call, tied, { ["1.weight"] = nyx.eye(2), ["2.weight"] = nyx.eye(2) },
      nyx.ones(1, 2))
    assert(tied[2].weight == tied[1].weight)
  end)

  it("says what is wrong", function()
    local x = nyx.ones(1, 3)
    fails("func.functional_call: 'module' is table, expected a module", func.functional_call, {},
      {}, x)
    fails("func.functional_call: the module has no parameter or buffer '1'", func.functional_call,
      net, { x }, x)
  end)

  it("does not leave its parameters to others by yielding", function()
    local Yielding = nyx.class("Yielding", nn.Module)
    function Yielding:init() self.w = nn.Parameter(nyx.ones(1)) end
    function Yielding:forward(x)
      coroutine.yield()
      return x * self.w
    end
    local module, two = Yielding(), nyx.full({ 1 }, 2)
    local ok, message = coroutine.resume(coroutine.create(function()
      func.functional_call(module, { w = two }, two)
    end))
    assert.is_false(ok)
    assert(message:find("func.functional_call: the module yields", 1, true), message)
    assert.equal(1, module.w:item())
  end)

  it("has its parameters in place for checkpoints that run again", function()
    local Saving = nyx.class("Saving", nn.Module)
    function Saving:init() self.inner = nn.Linear(2, 2):to("float64") end
    function Saving:forward(x)
      return nyx.checkpoint(function(h)
        return nyx.checkpoint(self.inner, h):tanh()
      end, x)
    end
    local module = Saving()
    local x = nyx.randn(3, 2, { dtype = "float64" })
    local own = {}
    for name, p in module:named_parameters() do
      own[name] = (p:detach() * 2):requires_grad_(true)
    end
    func.functional_call(module, own, x):sum():backward()
    local plain = {}
    for name, p in pairs(own) do plain[name] = p:detach() end
    local expected = func.grad(function(p)
      return func.functional_call(module, p, x):sum()
    end)(plain)
    local by_hand = func.grad(function(p)
      return (x:linear(p["inner.weight"], p["inner.bias"])):tanh():sum()
    end)(plain)
    for name, g in pairs(by_hand) do
      near(own[name].grad, g, 1e-10)
      near(expected[name], g, 1e-10)
    end
    for _, p in ipairs(module:parameters()) do assert.is_nil(p.grad) end
  end)

  it("runs an ensemble at once", function()
    local models = {}
    for m = 1, 3 do models[m] = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4)):eval() end
    local own, buffers = func.stack_module_state(models)
    assert.same({ 3, 4, 2 }, own["1.weight"].shape)
    assert.is_true(own["1.weight"].requires_grad and own["1.weight"].is_leaf)
    local x = nyx.randn(5, 2)
    local y = func.vmap(function(p, b, v)
      local state = {}
      for _, part in ipairs { p, b } do
        for name, t in pairs(part) do state[name] = t end
      end
      return func.functional_call(models[1], state, v)
    end, { in_dims = { 1, 1, false } })(own, buffers, x)
    for m = 1, 3 do near(y[m], models[m](x), 1e-5) end
    fails("func.stack_module_state: '1.weight' of model 2 is a tensor of shape (5x2)",
      func.stack_module_state, { models[1], nn.Sequential(nn.Linear(2, 5)) })
    fails("not every model has", func.stack_module_state,
      { models[1], nn.Sequential(nn.Linear(2, 4)) })
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
