-- Mixed precision: which dtype each op computes in, gradients, casts that are kept, and
-- amp.GradScaler against PyTorch 2.13's torch.amp.GradScaler("cpu").
local nyx = require "nyx"
local nn, amp, data, train = nyx.nn, nyx.amp, nyx.data, nyx.train

local here = debug.getinfo(1, "S").source:match("^@(.*)spec/lua/") or ""

local function message_of(...)
  local ok, text = pcall(...)
  assert.is_false(ok)
  return text
end

local function same(a, b)
  return a.dtype == b.dtype and a:eq(b):all():item()
end

local function largest(t) return t:double():abs():max():item() end

describe("nyx.autocast", function()
  it("lets each loss of a block have its own backward pass", function()
    local net = nyx.nn.Linear(4, 1)
    local first, second = nyx.autocast({ dtype = "bfloat16" }, function()
      return net(nyx.ones(3, 4)):mean(), net(nyx.ones(3, 4)):mean()
    end)
    first:backward()
    second:backward()
    assert.are.same({ { 2, 2, 2, 2 } }, net.weight.grad:totable())
  end)

  it("is on inside, off outside, and restored after an error", function()
    assert.is_false(nyx.is_autocast_enabled())
    local inner, back = nil, nil
    local a, b = nyx.autocast(function(x, y)
      assert.is_true(nyx.is_autocast_enabled())
      inner = nyx.autocast({ enabled = false }, nyx.is_autocast_enabled)
      back = nyx.is_autocast_enabled()
      return y, x
    end, 1, 2)
    assert.are.same({ 2, 1, false, true }, { a, b, inner, back })
    assert.is_false(nyx.is_autocast_enabled())
    assert.is_false(pcall(nyx.autocast, function() error("x") end))
    assert.is_false(nyx.is_autocast_enabled())
    local thread = coroutine.create(function()
      nyx.autocast(function() error("y") end)
    end)
    assert.is_false((coroutine.resume(thread)))
    assert.is_false(nyx.is_autocast_enabled())
  end)

  it("computes each op in the dtype its row or file says", function()
    local x, w = nyx.rand(4, 4) + 0.5, nyx.randn(4, 4)
    local image, kernel = nyx.randn(1, 2, 5, 5), nyx.randn(3, 2, 3, 3)
    nyx.autocast(function()
      local low = x:matmul(w)
      assert.are.equal("bfloat16", low.dtype)
      assert.are.equal("bfloat16", x:linear(w).dtype)
      assert.are.equal("bfloat16", image:conv2d(kernel).dtype)
      assert.are.equal("bfloat16", x:reshape(1, 4, 4):bmm(w:reshape(1, 4, 4)).dtype)
      for _, name in ipairs { "softmax", "log_softmax", "logsumexp", "exp", "log", "log1p",
        "sum", "mean", "prod", "norm", "var", "std", "cumsum", "rsqrt", "reciprocal",
        "softplus", "square" } do
        local dim = name:find "softmax" or name == "logsumexp" or name == "cumsum"
        local y = dim and low[name](low, 2) or low[name](low)
        assert.are.equal("float32", y.dtype, name)
      end
      assert.are.equal("float32", (low ^ 2).dtype)
      assert.are.equal("float32", low:layer_norm(nil, nil, { 4 }).dtype)
      assert.are.equal("float32", low:group_norm({ num_groups = 2 }).dtype)
      local labels = nyx.tensor({ 1, 2, 3, 4 }, { dtype = "int64" })
      assert.are.equal("float32", low:cross_entropy(labels).dtype)
      assert.are.equal("float32", low:sigmoid():binary_cross_entropy(low:sigmoid()).dtype)
      for _, name in ipairs { "relu", "tanh", "gelu", "neg", "sin" } do
        assert.are.equal("bfloat16", low[name](low).dtype, name)
      end
      assert.are.equal("float32", (low + x).dtype) -- what differs promotes as ever
      assert.are.equal("float32", nyx.cat({ low, x }).dtype)
    end)
  end)

  it("says what it does to an op in the op's description", function()
    assert.are.equal("low", nyx.op("matmul").autocast)
    assert.are.equal("float32", nyx.op("exp").autocast)
    assert.are.equal("float32", nyx.op("sum").autocast)
    assert.are.equal("none", nyx.op("relu").autocast)
    assert.are.equal("none", nyx.op("max").autocast)
  end)

  it("leaves float64, integers, numbers and what is written in place alone", function()
    local x = nyx.randn(3, 3)
    nyx.autocast(function()
      assert.are.equal("float64", x:double():matmul(x:double()).dtype)
      assert.are.equal("float64", x:double():matmul(x).dtype)
      assert.are.equal("int64", x:long():matmul(x:long()).dtype)
      assert.are.equal("int64", x:long():sum().dtype)
      local out = nyx.empty(3, 3)
      assert.are.equal(out, x:matmul(x, { out = out }))
      assert.are.equal("float32", out.dtype)
      assert.is_true(same(x:bfloat16():exp_(), x:bfloat16():exp_()))
      assert.are.equal("bfloat16", x:bfloat16():exp_().dtype)
    end)
    local expected = x:matmul(x)
    local out = nyx.autocast(function() return x:matmul(x, { out = nyx.empty(3, 3) }) end)
    assert.is_true(same(expected, out))
  end)

  it("takes dtype, enabled and device", function()
    local x = nyx.randn(2, 2)
    local function dtype() return x:matmul(x).dtype end
    assert.are.equal("float16", nyx.autocast({ dtype = "float16" }, dtype))
    assert.are.equal("float16", nyx.autocast({ dtype = nyx.float16, device = "cpu" }, dtype))
    assert.are.equal("float32", nyx.autocast({ enabled = false }, dtype))
    nyx.autocast({ dtype = "float16" }, function()
      assert.are.equal("bfloat16", nyx.autocast(dtype))
      assert.are.equal("float16", dtype())
    end)
    assert.matches("'dtype' is float32, expected bfloat16 or float16",
      message_of(nyx.autocast, { dtype = "float32" }, dtype))
    assert.matches("unknown option 'type'; known: dtype enabled device",
      message_of(nyx.autocast, { type = "float16" }, dtype), 1, true)
    assert.matches("boolean expected", message_of(nyx.autocast, { enabled = 1 }, dtype))
    assert.matches("fn", message_of(nyx.autocast, 3))
    assert.matches("fn", message_of(nyx.autocast, { dtype = "float16" }))
    assert.is_false(nyx.is_autocast_enabled())
    assert.matches("bad argument #2 'fn' to 'autocast' %(function expected, got number 3%)",
      message_of(nyx.autocast, { dtype = "bfloat16" }, 3))
  end)

  it("runs modules as functions", function()
    local layer = nn.Linear(3, 2)
    assert.are.equal("bfloat16", nyx.autocast(layer, nyx.randn(1, 3)).dtype)
  end)

  it("gives the gradients of the rounded product in the parameter's dtype", function()
    nyx.manual_seed(1)
    local x, w = nyx.randn(5, 8), nyx.randn(3, 8, { requires_grad = true })
    nyx.autocast(function() return (x:linear(w) * 2):sum() end):backward()
    assert.are.equal("float32", w.grad.dtype)
    -- By hand: the gradient 2 reaches a bfloat16 product with the rounded x.
    local g = nyx.full({ 5, 3 }, 2, { dtype = "bfloat16" })
    assert.is_true(same(g:t():matmul(x:bfloat16()):float(), w.grad))
  end)

  it("does not touch backward passes", function()
    local x, w = nyx.randn(5, 8), nyx.randn(8, 3, { requires_grad = true })
    local function loss() return (x:matmul(w)):exp():sum() end
    nyx.autocast(function() return loss() end):backward()
    local outside = w.grad
    w:zero_grad()
    nyx.autocast(function() loss():backward() end)
    assert.is_true(same(outside, w.grad))
    w:zero_grad()
    local y = loss()
    nyx.autocast(function() y:backward() end)
    local inside = w.grad
    w:zero_grad()
    loss():backward()
    assert.is_true(same(inside, w.grad))
  end)

  it("adds up products in float32", function()
    -- 8192 terms of 2^-7 reach 64; a bfloat16 sum would stop at 2 (256 * 2^-7), a float16
    -- one at 16.
    local n = 8192
    for _, dtype in ipairs { "bfloat16", "float16" } do
      local a, b = nyx.full({ 2, n }, 2 ^ -4), nyx.full({ n, 2 }, 2 ^ -3)
      local image = nyx.full({ 1, n / 16, 4, 4 }, 2 ^ -4)
      local kernel = nyx.full({ 2, n / 16, 4, 4 }, 2 ^ -3)
      nyx.autocast({ dtype = dtype }, function()
        assert.are.equal(64, a:matmul(b):max():item())
        assert.are.equal(64, a:linear(b:t(), nyx.zeros(2)):min():item())
        assert.are.equal(64, image:conv2d(kernel):max():item())
        local w = b:clone():requires_grad_(true)
        a:repeat_interleave(n / 2, 1):matmul(w):sum():backward() -- and in the gradient
        assert.are.equal(n * 2 ^ -4, w.grad[1][1]:item())
        assert.are.equal(64, nyx.full({ n }, 2 ^ -7, { dtype = dtype }):sum():item())
      end)
    end
    nyx.manual_seed(2)
    local a, b = nyx.randn(4, 4096), nyx.randn(4096, 4)
    local exact = a:bfloat16():double():matmul(b:bfloat16():double())
    local got = nyx.autocast(function() return a:matmul(b) end)
    assert.is_true(largest((got:double() - exact) / exact:abs():clamp(1)) < 2 ^ -8)
  end)

  it("casts a parameter once, again when it changed, and anew after backward", function()
    local w = nn.Parameter(nyx.randn(64, 64))
    local x = nyx.randn(1, 64, { dtype = "bfloat16" })
    local function blocks()
      collectgarbage()
      collectgarbage()
      local before = nyx.memory().allocated
      local y = x:matmul(w)
      return nyx.memory().allocated - before, y
    end
    nyx.autocast(function()
      local first = blocks()
      local second = blocks()
      assert.is_true(second < first)
      assert.are.equal(second, (blocks()))
      nyx.no_grad(function() w:mul_(2) end)
      local again, y = blocks()
      assert.is_true(again > second)
      assert.is_true(same(x:matmul(w:detach()), y:detach()))
      assert.are.equal(second, (blocks()))
      local sum = x:matmul(w):sum()
      sum:backward()
      assert.are.equal(first, (blocks()))
      x:matmul(w):sum():backward() -- its graph is its own
      assert.are.equal(second, nyx.autocast(function() -- nested: another backward came before
        local _ = x:matmul(w)
        return (blocks())
      end))
      assert.are.equal("float16", nyx.autocast({ dtype = "float16" }, function()
        return x:matmul(w).dtype
      end))
      assert.are.equal("bfloat16", x:matmul(w).dtype)
    end)
    -- They are let go where autocast ends.
    local inside = nyx.autocast(function()
      x:matmul(w):release()
      return nyx.memory().live
    end)
    assert.is_true(nyx.memory().live <= inside - 64 * 64 * 2)
  end)

  it("records for a parameter what was used without recording before", function()
    local w = nn.Parameter(nyx.randn(3, 3))
    local x = nyx.randn(2, 3)
    nyx.autocast(function()
      nyx.no_grad(function() return x:matmul(w) end)
      x:matmul(w):sum():backward()
    end)
    assert.is_truthy(w.grad)
  end)

  it("works with second order, jvp and vmap", function()
    local w = nyx.randn(3, 3, { requires_grad = true })
    local x = nyx.randn(2, 3)
    nyx.autocast(function()
      local g = nyx.grad(x:matmul(w):tanh():sum(), w, { create_graph = true })
      assert.are.equal("float32", nyx.grad((g * g):sum(), w).dtype)
      local y, dy = nyx.func.jvp(function(v) return x:matmul(v) end, { w:detach() },
        { nyx.ones(3, 3) })
      assert.are.same({ "bfloat16", "bfloat16" }, { y.dtype, dy.dtype })
      local rows = nyx.func.vmap(function(row) return row:matmul(w:detach()) end)(x)
      assert.is_true(same(x:matmul(w:detach()), rows))
    end)
  end)
end)

describe("the random state", function()
  it("is read and set", function()
    nyx.manual_seed(5)
    nyx.randn(7)
    local state = nyx.get_rng_state()
    local a, b = nyx.rand(3), nyx.randperm(9)
    nyx.manual_seed(6)
    nyx.set_rng_state(state)
    assert.is_true(same(a, nyx.rand(3)))
    assert.is_true(same(b, nyx.randperm(9)))
    assert.are.equal(5, nyx.initial_seed())
    for _, bad in ipairs { "", "zz", 3, state .. "0", ("x"):rep(33) } do
      assert.matches("set_rng_state", message_of(nyx.set_rng_state, bad))
    end
    assert.matches("bad argument #1 'state' to 'set_rng_state'",
      message_of(nyx.set_rng_state, "-000000000000001:0000000000000001"))
    assert.matches("bad argument #1 'state'",
      message_of(nyx.set_rng_state, "0x00000000000001:0000000000000001"))
  end)
end)

describe("amp.GradScaler", function()
  it("follows PyTorch step by step", function()
    local nan = 0 / 0
    local factors = { 1, 2, math.huge, 1, 1, -1, 0.5, nan, 1, 1, 1, 1 }
    -- get_scale(), the growth tracker and w[1] after each step, printed by PyTorch 2.13 with
    -- the same settings: SGD, lr 0.1, momentum 0.9, loss = sum(factor * w^2), w = {1, 2}.
    local expected = { { 1024, 1, 0.8 }, { 1024, 2, 0.30000001 }, { 256, 0, 0.30000001 },
      { 256, 1, -0.20999999 }, { 256, 2, -0.62699997 }, { 512, 0, -1.1277 },
      { 512, 1, -1.46555996 }, { 128, 0, -1.46555996 }, { 128, 1, -1.47652197 },
      { 128, 2, -1.19108331 }, { 256, 0, -0.69597191 }, { 256, 1, -0.11117724 } }
    local scaler = amp.GradScaler { init_scale = 1024, growth_interval = 3, growth_factor = 2,
      backoff_factor = 0.25 }
    local w = nyx.tensor({ 1, 2 }, { requires_grad = true })
    local optimizer = nyx.optim.SGD({ w }, { lr = 0.1, momentum = 0.9 })
    for i, factor in ipairs(factors) do
      optimizer:zero_grad()
      scaler:scale((w * w * factor):sum()):backward()
      scaler:step(optimizer)
      scaler:update()
      assert.are.equal(expected[i][1], scaler:get_scale())
      assert.are.equal(expected[i][2], scaler:state_dict().growth_tracker)
      assert.is_true(math.abs(expected[i][3] - w[1]:item()) < 2e-6, "step " .. i)
      assert.is_true(math.abs(2 * expected[i][3] - w[2]:item()) < 4e-6)
    end
  end)

  local function parts(options)
    local w = nyx.tensor({ 1, 2 }, { requires_grad = true })
    return amp.GradScaler(options), w, nyx.optim.SGD({ w }, { lr = 1 })
  end

  it("has PyTorch's defaults, and scales tensors and lists", function()
    local scaler = amp.GradScaler()
    assert.are.same({ scale = 65536, growth_factor = 2, backoff_factor = 0.5,
      growth_interval = 2000, growth_tracker = 0 }, scaler:state_dict())
    assert.are.equal(131072, scaler:scale(nyx.tensor(2)):item())
    local list = scaler:scale { nyx.tensor(1), nyx.tensor(3) }
    assert.are.equal(3 * 65536, list[2]:item())
  end)

  it("unscales once, before the step", function()
    local scaler, w, optimizer = parts()
    scaler:scale(w:sum()):backward()
    assert.are.equal(65536, w.grad[1]:item())
    scaler:unscale_(optimizer)
    assert.are.equal(1, w.grad[1]:item())
    assert.matches("unscale_: called a second time", message_of(scaler.unscale_, scaler, optimizer))
    nn.utils.clip_grad_value_(w, 0.5)
    scaler:step(optimizer)
    assert.are.equal(0.5, w[1]:item())
    assert.matches("step: called a second time", message_of(scaler.step, scaler, optimizer))
    assert.matches("unscale_: called after step", message_of(scaler.unscale_, scaler, optimizer))
    scaler:update()
    scaler:unscale_(optimizer)
  end)

  it("complains about a step without gradients, an update without a step", function()
    local scaler, w, optimizer = parts()
    assert.matches("no gradients", message_of(scaler.step, scaler, optimizer))
    scaler = amp.GradScaler()
    assert.matches("call step%(optimizer%) first", message_of(scaler.update, scaler))
    assert.matches("expected an optimiser", message_of(scaler.step, scaler, w))
    assert.matches("closures are not supported",
      message_of(scaler.step, scaler, optimizer, function() end))
    local half = nyx.ones(2, { dtype = "float16", requires_grad = true })
    local other = nyx.optim.SGD({ half }, { lr = 1 })
    scaler:scale(half:sum()):backward()
    assert.matches("a gradient is float16", message_of(scaler.step, scaler, other))
  end)

  it("looks at all optimisers, and never grows beyond float32", function()
    local scaler, w, optimizer = parts { init_scale = 2 ^ 127, growth_interval = 1 }
    local v = nyx.ones(1, { requires_grad = true })
    local second = nyx.optim.SGD({ v }, { lr = 1 })
    local function step(a, b)
      w.grad, v.grad = nyx.full({ 2 }, a), nyx.full({ 1 }, b)
      scaler:step(optimizer)
      scaler:step(second)
      scaler:update()
    end
    step(0, 0)
    assert.are.equal(2 ^ 127, scaler:get_scale())
    step(2 ^ 127, math.huge)
    assert.are.equal(2 ^ 126, scaler:get_scale())
    assert.are.equal(0, w[1]:item()) -- this one stepped
    assert.are.equal(1, v:item()) -- this one did not
    scaler:update(8)
    assert.are.equal(8, scaler:get_scale())
    assert.matches("'scale' is number %-1", message_of(scaler.update, scaler, -1))
  end)

  it("never shrinks to zero, and scales tables with names", function()
    local scaler, w, optimizer = parts { init_scale = 2 ^ -120 }
    for _ = 1, 10 do
      w.grad = nyx.full({ 2 }, math.huge)
      scaler:step(optimizer)
      scaler:update()
    end
    assert.are.equal(2 ^ -126, scaler:get_scale())
    scaler = amp.GradScaler { init_scale = 4 }
    local losses = scaler:scale { loss = nyx.ones(1), [2] = nyx.ones(1) }
    assert.are.equal(4, losses.loss:item())
    assert.are.equal(4, losses[2]:item())
    assert.matches("'loss' is string 'x', expected a tensor",
      message_of(scaler.scale, scaler, { name = "x" }))
  end)

  it("does nothing when disabled", function()
    local scaler, w, optimizer = parts { enabled = false }
    scaler:scale(w:sum()):backward()
    scaler:unscale_(optimizer)
    scaler:step(optimizer)
    scaler:update()
    assert.are.same({ 0, 1 }, w:totable())
    assert.are.same({ 1, false }, { scaler:get_scale(), scaler:is_enabled() })
    assert.are.same({}, scaler:state_dict())
  end)

  it("saves and restores its state, or changes nothing", function()
    local a = amp.GradScaler { init_scale = 64, growth_interval = 5, growth_factor = 3 }
    local b = amp.GradScaler()
    b:load_state_dict(a:state_dict())
    assert.are.same(a:state_dict(), b:state_dict())
    local before = b:state_dict()
    local bad = a:state_dict()
    bad.scale, bad.growth_tracker = 2, -1
    assert.matches("growth_tracker", message_of(b.load_state_dict, b, bad))
    assert.are.same(before, b:state_dict())
    assert.matches("disabled", message_of(b.load_state_dict, b, {}))
    assert.matches("'backoff_factor' is number 2", message_of(amp.GradScaler,
      { backoff_factor = 2 }))
    assert.matches("'growth_factor' is number 1", message_of(amp.GradScaler, { growth_factor = 1 }))
    assert.matches("unknown option 'scale'", message_of(amp.GradScaler, { scale = 1 }))
  end)
end)

describe("training in mixed precision", function()
  local rows = assert(data.csv(here .. "examples/data/digits.csv.gz"))
  local images = rows:narrow(2, 1, 64):reshape({ -1, 1, 8, 8 }) / 16
  local labels = rows:select(2, 65):to("int64") + 1

  local function learn(mode)
    nyx.manual_seed(7)
    local training, held_out = data.split(data.TensorDataset(images, labels), { 0.8, 0.2 })
    local model = nn.Sequential(nn.Conv2d(1, 8, 3, { padding = 1 }), nn.ReLU(),
      nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10))
    local criterion = nn.CrossEntropyLoss()
    local optimizer = nyx.optim.AdamW(model:parameters(), { lr = 1e-2 })
    local scaler = amp.GradScaler { enabled = mode.dtype == "float16", growth_interval = 20 }
    for _ = 1, 3 do
      for x, y in data.DataLoader(training, { batch_size = 64, shuffle = true }) do
        optimizer:zero_grad()
        local loss = nyx.autocast(mode, function() return criterion(model(x), y) end)
        scaler:scale(loss):backward()
        scaler:step(optimizer)
        scaler:update()
      end
    end
    local x, y = held_out:get()
    return train.accuracy(nyx.no_grad(model, x), y), scaler:get_scale()
  end

  it("learns to read digits as well as in float32", function()
    local plain = learn { enabled = false }
    assert.is_true(plain > 0.9)
    assert.is_true(math.abs(learn { dtype = "bfloat16" } - plain) < 0.02)
    local accuracy, scale = learn { dtype = "float16" }
    assert.is_true(math.abs(accuracy - plain) < 0.02)
    assert.is_true(scale ~= 65536) -- it was found
  end)
end)
