-- Changes in place and their gradients: of a tensor, through views of it, of what is saved;
-- and inference mode. Random programs against PyTorch are in spec/peers/changes.py.
local nyx = require "nyx"

local function f64(values) return nyx.tensor(values, { dtype = "float64" }) end

local function leaf(values)
  local t = f64(values)
  t.requires_grad = true
  return t
end

local function fails(pattern, fn)
  local ok, message = pcall(fn)
  assert.is_false(ok)
  assert.matches(pattern, tostring(message))
end

describe("changes through views", function()
  it("reach the base and what the base was made from", function()
    local x, z = leaf { { 1, 2, 3 }, { 4, 5, 6 } }, leaf { { 10 }, { 20 } }
    local y = x * 2
    y[1]:mul_(3)
    y:narrow(1, 2, 1):narrow(2, 2, 2):add_(z[1])
    assert.same({ { 6, 12, 18 }, { 8, 20, 22 } }, y:totable())
    y:sum():backward()
    assert.same({ { 6, 6, 6 }, { 2, 2, 2 } }, x.grad:totable())
    assert.same({ { 2 }, { 0 } }, z.grad:totable())
  end)

  it("reach views made before and after them", function()
    local x = leaf { 1, 2, 3 }
    local y = x * 1
    local before, view = y[{ { 2, 3 } }], y[{ { 1, 2 } }]
    view:mul_(5)
    local after = y[{ { 1, 2 } }]
    assert.same({ 10, 3 }, before:totable())
    assert.same({ 0, 5, 1 }, nyx.grad(before:sum(), x, { retain_graph = true }):totable())
    assert.same({ 5, 5, 0 }, nyx.grad(after:sum(), x, { retain_graph = true }):totable())
    assert.same({ 5, 5, 0 }, nyx.grad(view:sum(), x):totable())
    assert.equal("as_strided", before.grad_fn.name)
  end)

  it("of the base reach its views", function()
    local x = leaf { 1, 2 }
    local y = x * 1
    local view = y[1]
    y:mul_(f64 { 3, 4 })
    y[{ { 1 } }] = x[{ { 2 } }] * 7
    assert.equal(14, view:item())
    assert.same({ 0, 7 }, nyx.grad(view, x):totable())
  end)

  it("go through chains of views of any kind", function()
    local x = leaf { { 1, 2, 3 }, { 4, 5, 6 }, { 7, 8, 9 } }
    local y = x * 1
    y:t():view_as(y:t()):diagonal():unsqueeze(1)[{ {}, { 1, 3, 2 } }]:squeeze():mul_(10)
    assert.same({ { 10, 2, 3 }, { 4, 5, 6 }, { 7, 8, 90 } }, y:totable())
    assert.same({ { 10, 1, 1 }, { 1, 1, 1 }, { 1, 1, 10 } }, nyx.grad(y:sum(), x):totable())
  end)

  it("make a base without history part of the graph", function()
    local w = leaf { 2, 3 }
    local rows = nyx.zeros(3, 2, { dtype = "float64" })
    for i = 1, 3 do rows[i]:copy_(w * i) end
    assert.is_true(rows.requires_grad)
    rows:sum():backward()
    assert.same({ 6, 6 }, w.grad:totable())
  end)

  it("have gradients of any order", function()
    local x = leaf { 0.5, 2 }
    local y = x * x
    y[2]:mul_(x[1])
    y[1]:exp_()
    -- exp(a^2) + a b^2
    local g = nyx.grad(y:sum(), x, { create_graph = true })
    local a, b = 0.5, 2
    assert.is_true(math.abs(g[1]:item() - (2 * a * math.exp(a * a) + b * b)) < 1e-12)
    local gg = nyx.grad(g[1], x)
    assert.is_true(math.abs(gg[1]:item() - (2 + 4 * a * a) * math.exp(a * a)) < 1e-12)
    assert.is_true(math.abs(gg[2]:item() - 2 * b) < 1e-12)
  end)

  it("of a leaf that requires a gradient need no_grad", function()
    local x = leaf { { 1, 2 }, { 3, 4 } }
    fails("view of a leaf.*no_grad", function() x[1]:mul_(2) end)
    fails("view of a leaf", function() x[1]:copy_(x[2]) end)
    assert.same({ { 1, 2 }, { 3, 4 } }, x:totable())
    nyx.no_grad(function() x[1]:mul_(2) end)
    assert.same({ { 2, 4 }, { 3, 4 } }, x:totable())
    local old = nyx.zeros(2, 2)
    local row = old[1]
    old.requires_grad = true
    fails("view of a leaf", function() row:add_(1) end)
  end)

  it("under no_grad are seen by gradients that saved what was", function()
    local x = leaf { 1, 2 }
    local y = x * 1
    local z = y * y
    nyx.no_grad(function() y[1]:add_(1) end)
    fails("changed in place", function() z:sum():backward() end)
    assert.is_nil(x.grad)
  end)

  it("are refused where the history could not follow", function()
    local x = leaf { 1, 2 }
    local y = x * 1
    local blind = nyx.no_grad(function() return y[1] end)
    fails("no_grad.*clone", function() blind:mul_(x[2]) end)
    local turned = nyx.ones(2, 4):narrow(2, 1, 3):t():detach() -- with gaps
    fails("gaps.*clone", function() turned[1]:mul_(x[1]:to("float32")) end)
    fails("gaps.*clone", function() turned[1][1]:mul_(x[1]:to("float32")) end)
    turned:mul_(x[1]:to("float32")) -- itself it may
    assert.is_true(turned.requires_grad)
  end)

  it("of products with `out` need no memory beside it, unless it is read", function()
    nyx.manual_seed(3)
    local x, w, b = nyx.randn(300, 40), nyx.randn(500, 40), nyx.randn(500)
    local turned = w:t()
    local function check(out, apply, want, beside)
      collectgarbage()
      nyx.memory_reset_peak()
      local before = nyx.memory().live
      assert.are.equal(out, apply(out))
      assert.are.equal(beside, nyx.memory().peak - before >= 300 * 500 * 4)
      assert.is_true(out:equal(want:to(out.dtype)))
    end
    local product, linear = x:matmul(turned), x:linear(w, b)
    for _ = 1, 2 do -- the first time, packed copies of w may be made as well
      for _, target in ipairs { nyx.ones(300, 500), nyx.ones(2, 300, 500)[2] } do
        check(target, function(out) return x:matmul(turned, { out = out }) end, product, false)
        check(target, function(out) return x:linear(w, b, { out = out }) end, linear, false)
      end
    end
    check(nyx.ones(300, 1000):narrow(2, 1, 500), function(out)
      return x:linear(w, b, { out = out })
    end, linear, true)
    check(nyx.ones({ 300, 500 }, { dtype = "float64" }), function(out)
      return x:linear(w, b, { out = out })
    end, linear, true)
    local square = nyx.randn(70, 70)
    local copy, all = square:clone(), nyx.randn(3, 70, 70)
    assert.is_true(square:matmul(square, { out = square }):equal(copy:matmul(copy)))
    copy = all:clone()
    assert.is_true(all[1]:matmul(all[2], { out = all[2] }):equal(copy[1]:matmul(copy[2])))
    assert.is_true(all[1]:linear(all[3], all[1][1], { out = all[1] }):equal(
      copy[1]:linear(copy[3], copy[1][1])))
    local none = nyx.ones(4, 0):matmul(nyx.ones(0, 3), { out = nyx.ones(4, 3) })
    assert.is_true(none:equal(nyx.zeros(4, 3)))
  end)

  it("of running sums and softmax with `out` neither", function()
    local x = nyx.rand(200, 500)
    for _, name in ipairs { "cumsum", "cumprod", "logcumsumexp", "softmax", "log_softmax" } do
      local want, out = nyx[name](x, 2), nyx.ones(200, 500)
      collectgarbage()
      nyx.memory_reset_peak()
      local before = nyx.memory().live
      assert.are.equal(out, nyx[name](x, 2, { out = out }))
      assert.is_true(nyx.memory().peak - before < x:numel() * 4, name)
      assert.is_true(out:equal(want))
      local wide = nyx.ones(200, 1000):narrow(2, 1, 500)
      assert.is_true(nyx[name](x, 2, { out = wide }):equal(want))
      local own = x:clone()
      assert.is_true(nyx[name](own, 2, { out = own }):equal(want), name)
    end
    local at, best = x:cumargmax(2), nyx.zeros({ 200, 500 }, { dtype = "int64" })
    assert.is_true(x:cumargmax(2, { out = best }):equal(at))
  end)

  it("with `out` are not recorded silently", function()
    local y = leaf { 1, 2 } * 1
    fails("existing tensor", function() nyx.add(f64 { 1, 2 }, f64 { 1, 2 }, { out = y }) end)
    assert.same({ 1, 2 }, y:totable())
  end)

  it("keep what gradients need of the overwritten values", function()
    local x, z = leaf { 2 }, leaf { 5 }
    local y = x * 1
    y:mul_(z)
    y:mul_(y)
    y:sum():backward()
    assert.same({ 100 }, x.grad:totable()) -- (x z)^2
    assert.same({ 40 }, z.grad:totable())
  end)

  it("move retained gradients and leave hooks with what was", function()
    local x = leaf { 1, 2 }
    local y = x * 1
    local view, seen = y[1], nil
    view:retain_grad()
    view:register_hook(function(g) seen = g:item() end)
    view:mul_(3)
    local z = view * 7
    z:backward()
    assert.equal(7, view.grad:item())
    assert.equal(21, seen)
    assert.same({ 21, 0 }, x.grad:totable())
  end)

  it("cost nothing and hold nothing without history", function()
    local data = nyx.zeros(4, 4)
    for i = 1, 4 do data[i]:fill_(i) end
    assert.is_false(data.requires_grad)
    assert.is_true(data.is_leaf)
    assert.equal(40, data:sum():item())
  end)

  it("leave no cycles", function()
    local x = nyx.ones(1000, { requires_grad = true })
    local function live()
      collectgarbage()
      collectgarbage()
      return nyx.memory().live
    end
    local before = live()
    for _ = 1, 20 do
      local y = x * 2
      local view = y[{ { 1, 500 } }]
      local w = view * view
      view:add_(w)
      y:mul_(y:exp())
      y[{ { 3, 7 } }] = w[{ { 1, 5 } }]
    end
    assert.equal(before, live())
  end)
end)

describe("inference_mode", function()
  it("records nothing and marks what it makes", function()
    local w = leaf { 1, 2 }
    local y, x = nyx.inference_mode(function(a)
      assert.is_true(nyx.is_inference_mode_enabled())
      assert.is_false(nyx.is_grad_enabled())
      local inner = nyx.enable_grad(function() return a * 2 end)
      assert.is_false(inner.requires_grad)
      return a * 3, nyx.ones(2)
    end, w)
    assert.same({ 3, 6 }, y:totable())
    assert.is_false(y.requires_grad)
    assert.is_true(y:is_inference())
    assert.is_true(x:is_inference())
    assert.is_true(y[1]:is_inference())
    assert.is_false(w:is_inference())
    assert.is_false((y * 2):is_inference())
    assert.is_false(nyx.is_inference_mode_enabled())
    assert.is_true(nyx.is_grad_enabled())
  end)

  it("nests, and ends with an error", function()
    nyx.no_grad(function()
      pcall(nyx.inference_mode, function()
        nyx.no_grad(function() end)
        nyx.inference_mode(function() nyx.set_grad_enabled(true) end)
        assert.is_true(nyx.is_inference_mode_enabled())
        error "stop"
      end)
      assert.is_false(nyx.is_inference_mode_enabled())
      assert.is_false(nyx.is_grad_enabled())
    end)
    assert.is_true(nyx.is_grad_enabled())
    assert.is_true(coroutine.wrap(function()
      pcall(nyx.inference_mode, error, "stop")
      return not nyx.is_inference_mode_enabled()
    end)())
  end)

  it("gives views of other tensors that are none", function()
    local w = leaf { 1, 2 }
    local view = nyx.inference_mode(function() return w[1] end)
    assert.is_false(view:is_inference())
    local x = f64 { 1, 2 }
    local z = leaf { 1, 1 } * x
    nyx.inference_mode(function() x[1]:add_(1) end)
    fails("changed in place", function() z:sum():backward() end) -- it was counted
  end)

  it("keeps gradients from what it made", function()
    local w = leaf { 1, 2 }
    local x = nyx.inference_mode(function() return f64 { 3, 4 } end)
    assert.same({ 1, 1 }, nyx.grad((w + x):sum(), w):totable()) -- nothing is saved
    fails("inference mode.*clone", function() return w * x end)
    assert.same({ 3, 4 }, nyx.grad((w * x:clone()):sum(), w):totable())
    fails("inference mode.*clone", function() x.requires_grad = true end)
    fails("inference mode.*clone", function() x:add_(w) end)
    fails("inference mode.*clone", function() x[1]:add_(w[1]) end)
    assert.same({ 3, 4 }, x:totable())
    x:add_(1)
    assert.same({ 4, 5 }, x:totable())
  end)

  it("leaves transforms alone", function()
    nyx.inference_mode(function()
      local function f(a) return (a * a:exp()):sum() end
      local value, tangent = nyx.func.jvp(f, { f64 { 1 } }, { f64 { 1 } })
      assert.is_true(math.abs(tangent:item() - 2 * value:item()) < 1e-12)
    end)
  end)
end)

describe("a view that is out of date", function()
  it("is seen by checkpoints and functions", function()
    local w = leaf { 3, 3 }
    local function f(x)
      local y = x * 2
      local view = y[1]
      y:mul_(w)
      return view
    end
    local x = leaf { { 1, 2 }, { 3, 4 } }
    nyx.checkpoint(f, x):sum():backward()
    assert.same({ 2, 4 }, w.grad:totable())
    local p, base = leaf { 2, 2 }, f64 { { 1, 1 }, { 1, 1 } }
    local view = base[1]
    base:mul_(p)
    local Times = nyx.Function("times", { -- d2 y / dx dp = 1
      forward = function(ctx, v)
        ctx:save_for_backward(view)
        return v * view
      end,
      backward = function(ctx, g) return g * ctx:saved_tensors() end,
    })
    local v = leaf { 1, 1 }
    local g = nyx.grad(Times(v):sum(), v, { create_graph = true })
    assert.same({ 1, 1 }, nyx.grad(g:sum(), p):totable())
  end)

  it("follows a base whose dimensions lie in another order in memory", function()
    local start = nyx.randn(2, 3, 2, 4, { dtype = "float64" })
    local function gradients(turn)
      local x, p = start:clone(), leaf { 2, 3, 5, 7 }
      x.requires_grad = true
      local y = turn(x) * 2
      local before = y:select(2, 2)          -- renewed after the change
      local view = y:select(1, 2):narrow(1, 2, 2)
      view:mul_(p)
      view:select(1, 1):add_(p:select(1, 1))
      local sum = (y * y * y):sum() + (before * before):sum() + (view * p):sum()
      local g = nyx.grad(sum, { x, p }, { create_graph = true })
      local second = nyx.grad((g[1] * g[1]):sum() + (g[2] * g[2]):sum(), { x, p })
      return y:is_contiguous(), { sum, g[1], g[2], second[1], second[2] }
    end
    local plain, expected = gradients(function(x) return x end)
    assert.is_true(plain)
    for _, turn in ipairs {
      function(x) return x:to { memory_format = "channels_last" } end,
      function(x) return x:permute(4, 2, 1, 3):contiguous():permute(3, 2, 4, 1) end,
    } do
      local contiguous, got = gradients(turn)
      assert.is_false(contiguous)
      for i, value in ipairs(got) do
        assert.is_true(((value - expected[i]) / expected[i]):abs():max():item() < 1e-12)
      end
    end
  end)

  it("is refused where it cannot follow", function()
    local p = leaf { 2, 3 }
    local base = f64 { { 1, 2, 0 }, { 3, 4, 0 } }:narrow(2, 1, 2):t():detach() -- with gaps
    local view, inner = base[1], base[1][1]
    assert.same({ 2, 6 }, (view * 2):totable())
    base:mul_(p)
    fails("a view is out of date", function() return view:sum() end)
    fails("a view is out of date", function() return inner:sum() end)
    assert.same({ 1, 3 }, nyx.grad(base[1]:sum(), p):totable())
  end)
end)

describe("gradients", function()
  it("are added up from what they were before", function()
    for _, swap in ipairs { false, true } do
      local x, y = leaf { 1, 1 }, leaf { 1, 1 }
      x.grad, y.grad = f64 { 1, 1 }, f64 { 10, 10 }
      local sum = swap and y + x or x + y
      sum:backward(x.grad)
      assert.same({ 2, 2 }, x.grad:totable())
      assert.same({ 11, 11 }, y.grad:totable())
    end
    for seed, expected in ipairs { { 2, 11 }, { 11, 20 } } do
      local t = { leaf { 1 } * 1, leaf { 1 } * 1 }
      for _, y in ipairs(t) do y:retain_grad() end
      t[1].grad, t[2].grad = f64 { 1 }, f64 { 10 };
      (t[1] + t[2]):backward(t[seed].grad)
      assert.same(expected, { t[1].grad:item(), t[2].grad:item() })
    end
  end)

  it("are each leaf's own, recorded or not", function()
    for _, create in ipairs { false, true } do
      local x, y, seed = leaf { 1, 1 }, leaf { 1, 1 }, f64 { 1, 1 }
      local sum = x + y
      sum:backward(seed, { create_graph = create })
      nyx.no_grad(function() x.grad:mul_(100) end)
      assert.same({ 1, 1 }, y.grad:totable())
      assert.same({ 1, 1 }, seed:totable())
      x, y = leaf { 1, 1 }, leaf { 1, 1 }
      sum = (x + y):sum()
      sum:backward { create_graph = create }
      nyx.no_grad(function() x.grad:add_(100) end)
      assert.same({ 101, 101 }, x.grad:totable())
      assert.same({ 1, 1 }, y.grad:totable())
      x, seed = leaf { 1, 1 }, f64 { { 1, 1 } } -- what arrives is a view of the seed
      x:reshape(1, 2):backward(seed, { create_graph = create })
      nyx.no_grad(function() x.grad:mul_(100) end)
      assert.same({ { 1, 1 } }, seed:totable())
      x = leaf { 1, 1 } -- one number, repeated
      x:sum():backward { create_graph = create }
      nyx.no_grad(function() x.grad:add_(f64 { 1, 2 }) end)
      assert.same({ 2, 3 }, x.grad:totable())
      assert.is_true(x.grad:is_contiguous())
    end
  end)

  it("flow again through ops that kept nothing", function()
    local x = leaf { 1, 1 }
    local y = x + 1;
    (y * 2):sum():backward();
    (y * 3):sum():backward()
    assert.same({ 5, 5 }, x.grad:totable())
    local z = x:exp()
    z:sum():backward()
    fails("freed by an earlier backward", function() z:sum():backward() end)
    y = x + 1 -- a hook may hold on to the graph: it goes with the first pass
    y:register_hook(function(g) return g * 2 end)
    y:sum():backward()
    fails("freed by an earlier backward", function() y:sum():backward() end)
  end)
end)
