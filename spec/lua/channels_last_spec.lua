-- Memory formats: contiguous, to, is_contiguous and what is made like another tensor;
-- results that lie in memory as their inputs do; a residual block, forward and backward,
-- that stays channels-last all the way. Read next: spec/c/last_test.c, core/op/conv_last.c.
local nyx = require "nyx"
local nn = nyx.nn

local function last(x) return x:is_contiguous("channels_last") and not x:is_contiguous() end

-- The same order of dimensions, perhaps with gaps.
local function ordered(x)
  local s = x:stride()
  return s[2] == 1 and s[4] >= x.shape[2] and s[3] >= s[4] * x.shape[4] and
    s[1] >= s[3] * x.shape[3]
end

local function images(...) return nyx.randn(...):contiguous("channels_last") end

describe("channels-last", function()
  before_each(function() nyx.manual_seed(5) end)

  it("is asked for with contiguous and to", function()
    local x = nyx.randn(2, 3, 4, 5)
    local y = x:contiguous("channels_last")
    assert.same({ 60, 1, 15, 3 }, y:stride())
    assert.same({ 2, 3, 4, 5 }, y.shape)
    assert.is_true(y:equal(x))
    assert.is_true(last(y))
    assert.is_false(x:is_contiguous("channels_last"))
    assert.is_true(rawequal(y, y:contiguous("channels_last")))
    assert.is_true(rawequal(y, y:to { memory_format = "channels_last" }))
    assert.is_true(rawequal(x, x:to { memory_format = "contiguous" }))
    local z = x:to { dtype = "float64", memory_format = "channels_last" }
    assert.equal("float64", z.dtype)
    assert.is_true(last(z))
    assert.same({ 60, 20, 5, 1 }, y:contiguous():stride())
    assert.is_true(y:contiguous():equal(x))
  end)

  it("has strides of its own where sizes are 1", function()
    local x = nyx.randn(4, 6, 1, 1)
    assert.same({ 6, 1, 6, 6 }, x:contiguous("channels_last"):stride())
    assert.same({ 6, 1, 6, 6 }, (x:contiguous("channels_last") * 2):stride())
    assert.is_true(nyx.randn(4, 1, 1, 1):is_contiguous("channels_last"))
  end)

  it("has the gradient of a column in steps of two, of several images", function()
    local rows, w = nyx.randn(3, 4, 5, 1):requires_grad_(), nyx.randn(6, 4, 1, 1)
    local turned = rows:detach():contiguous("channels_last"):requires_grad_()
    local g = nyx.randn(3, 6, 3, 1)
    rows:conv2d(w, nil, { stride = 2 }):backward(g)
    turned:conv2d(w, nil, { stride = 2 }):backward(g:contiguous("channels_last"))
    assert.is_true(turned.grad:allclose(rows.grad, 1e-5, 1e-6))
  end)

  it("says what is wrong", function()
    local x = nyx.randn(2, 3)
    assert.error_matches(function() x:contiguous("channels_last") end,
      "contiguous: 'x' has shape %(2x3%), expected %(batch, channels, height, width%)")
    assert.error_matches(function() x:contiguous("rows") end,
      "contiguous: 'memory_format' is \"rows\", expected \"contiguous\" or \"channels_last\"")
    assert.error_matches(function() x:is_contiguous("rows") end,
      "is_contiguous: 'memory_format' is \"rows\", expected")
    assert.error_matches(function() x:is_contiguous(1) end, "string expected, got number 1")
    assert.error_matches(function() x:to { memory_format = "rows" } end,
      "to: 'memory_format' is \"rows\", expected")
    assert.error_matches(function() x:to { memory = 1 } end, "known: dtype device memory_format")
    assert.error_matches(function() nn.Linear(2, 3):to { format = "x" } end, "format")
    assert.error_matches(function() nn.Linear(2, 3):to { dtype = "int32" } end, "float dtype")
  end)

  it("is kept by what is like it", function()
    local x = images(2, 3, 4, 5)
    for _, name in ipairs { "zeros_like", "ones_like", "empty_like", "rand_like", "randn_like" } do
      assert.is_true(last(nyx[name](x)), name)
      assert.is_true(nyx[name](x, { memory_format = "contiguous" }):is_contiguous(), name)
      assert.is_true(nyx[name](x:contiguous()):is_contiguous(), name)
    end
    assert.is_true(last(nyx.full_like(x, 3)))
    local y = nyx.randn_like(x, { requires_grad = true })
    assert.is_true(y.requires_grad and y.is_leaf and last(y))
    nyx.manual_seed(5)
    local a = nyx.randn_like(x)
    nyx.manual_seed(5)
    assert.is_true(a:equal(nyx.randn_like(x:contiguous())))
  end)

  it("is kept by elementwise ops, casts and gradients", function()
    local x, c = images(2, 3, 4, 5), nyx.randn(3, 1, 1)
    local ops = {
      relu = function() return x:relu() end,
      add = function() return x + x end,
      number = function() return 2 - x end,
      broadcast = function() return c * x end,
      compare = function() return x:gt(0) end,
      clone = function() return x:clone() end,
      cast = function() return x:double() end,
      dropout = function() return x:dropout(0.5) end,
      where = function() return nyx.where(x:gt(0), x, c) end,
      cat = function() return nyx.cat({ x, 2 * x, nyx.zeros { 0 } }, 2) end,
      evaluation = function() return nyx.batch_norm(x, nil, nil, c:flatten(),
        c:flatten():exp()) end,
    }
    ops.group_norm = function() return x:group_norm { num_groups = 3 } end
    for _, mode in ipairs { "constant", "reflect", "replicate", "circular" } do
      ops["pad " .. mode] = function() return x:pad({ 1, 2, 0, -1 }, { mode = mode }) end
    end
    ops.flip = function() return x:flip { 3, 4 } end
    ops.roll = function() return x:roll({ 1, 2 }, { 2, 3 }) end
    for name, op in pairs(ops) do assert.is_true(last(op()), name) end
    assert.is_true(x:roll { 3 }:is_contiguous()) -- all elements as one row
    assert.is_true(x:contiguous():flip { 3 }:is_contiguous())
    assert.is_true((x + x:contiguous()):is_contiguous("channels_last"))
    assert.is_true(nyx.cat({ x, x * 2 }, 1):equal(nyx.cat({ x:contiguous(), x * 2 }, 1)))
    assert.is_true(nyx.cat({ x:contiguous(), x }, 1):is_contiguous())
    assert.is_true((x:contiguous() + x):is_contiguous())
    assert.is_true((x:contiguous() * x):equal(x * x))
    x:requires_grad_(true)
    x:sigmoid():mul(x):sum():backward()
    assert.is_true(last(x.grad))
    x.grad = nil
    x:group_norm({ num_groups = 1 }):pow(3):sum():backward()
    assert.is_true(last(x.grad))
  end)

  it("is kept by slices of channels and of places", function()
    local x = images(2, 6, 5, 7):requires_grad_()
    local slices = {
      channels = function(t) return t:narrow(2, 2, 3) end,
      one = function(t) return t:narrow(2, 3, 1) end,
      places = function(t) return t:narrow(3, 2, 3):narrow(4, 1, 4) end,
      steps = function(t) return t:slice(2, 1, 6, 2) end,
    }
    local ops = {
      exp = function(t) return t:exp() end,
      where = function(t) return nyx.where(t:gt(0), t, -t) end,
      row = function(t) return t * nyx.ones(t.shape) end,
      clone = function(t) return t:clone() end,
      cast = function(t) return t:double() end,
      cat = function(t) return nyx.cat({ t, t }, 2) end,
      pad = function(t) return t:pad({ 1, 1, 2, 0 }, { mode = "reflect" }) end,
      flip = function(t) return t:flip { 3 } end,
      roll = function(t) return t:roll({ 1 }, { 4 }) end,
      pool = function(t) return t:max_pool2d(2) end,
      average = function(t) return t:avg_pool2d(2) end,
      norm = function(t) return t:group_norm { num_groups = 1 } end,
      conv = function(t) return t:conv2d(nyx.ones(4, t.shape[2], 3, 3) / 9) end,
      like = function(t) return nyx.ones_like(t) * t end,
    }
    for at, slice in pairs(slices) do
      for name, op in pairs(ops) do
        local what = name .. " of " .. at
        local rows = x:detach():contiguous():requires_grad_()
        local y, z = op(slice(x)), op(slice(rows))
        assert.is_true(y:is_contiguous("channels_last"), what)
        assert.is_true(y:allclose(z, 1e-5, 1e-6), what)
        x.grad = nil
        local g = nyx.randn_like(z)
        y:backward(g:contiguous("channels_last"))
        z:backward(g)
        assert.is_true(last(x.grad), "gradient of " .. what)
        assert.is_true(x.grad:allclose(rows.grad, 1e-4, 1e-5), "gradient of " .. what)
      end
    end
    assert.is_false(last(slices.channels(x)))
    assert.is_true(last(slices.channels(x):contiguous("channels_last")))
    assert.is_true(nyx.cat({ slices.channels(x), x:contiguous() }, 2):is_contiguous())
  end)

  it("has second gradients of slices", function()
    local x = images(1, 4, 4, 4):double():requires_grad_()
    local w = nyx.randn(3, 2, 3, 3, { dtype = "float64" })
    for _, mode in ipairs { "constant", "reflect", "replicate", "circular" } do
      local function f(t)
        return (t:narrow(2, 2, 2):pad({ 1, 1, 1, 1 }, { mode = mode }):conv2d(w) ^ 2)
          :roll({ 1 }, { 3 }):flip { 4 }
      end
      assert.is_true(nyx.gradcheck(f, x))
      assert.is_true(nyx.gradgradcheck(f, x))
    end
  end)

  it("is one order of dimensions among others", function()
    local x = nyx.randn(3, 4)
    assert.same({ 1, 4 }, x:t():exp():stride())
    assert.is_true(x:t():exp():equal(x:exp():t()))
    assert.same({ 1, 4 }, (x:t() + nyx.randn(1, 3)):stride())
    assert.same({ 3, 1 }, x:t():exp():contiguous():stride())
    assert.same({ 2, 1 }, x:narrow(2, 1, 2):exp():stride()) -- gaps are not kept
    assert.same({ 1, 2 }, x:t():narrow(2, 1, 3):narrow(1, 2, 2):exp():stride())
    assert.same({ 1, 4 }, x:t():flip({ 2 }):stride())
    assert.same({ 12 }, x:t():exp():reshape(12).shape)
    assert.is_true(x:t():exp():reshape(12):equal(x:t():contiguous():exp():flatten()))
  end)

  it("is a gradient's where the leaf is", function()
    local x, w = nyx.randn(2, 3, 8, 8), nyx.randn(4, 3, 3, 3)
    for _, of_x in ipairs { "contiguous", "channels_last" } do
      for _, of_w in ipairs { "contiguous", "channels_last" } do
        local a = x:contiguous(of_x):detach():requires_grad_(true)
        local b = w:contiguous(of_w):detach():requires_grad_(true)
        for _ = 1, 2 do a:conv2d(b, nil, { padding = 1 }):pow(2):sum():backward() end
        assert.is_true(a.grad:is_contiguous(of_x))
        assert.is_true(b.grad:is_contiguous(of_w))
      end
    end
  end)

  it("changes what a module's weights of images lie in", function()
    local net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    net:eval()
    local bias, linear = net[1].bias, net[4].weight
    assert.is_true(rawequal(net, net:to { memory_format = "channels_last" }))
    assert.is_true(last(net[1].weight) and net[1].weight.requires_grad)
    assert.is_true(rawequal(bias, net[1].bias) and rawequal(linear, net[4].weight))
    local x = nyx.randn(1, 3, 3, 3)
    assert.is_true(last(net[1](nyx.randn(1, 3, 4, 4))))
    assert.is_true(net(x):allclose(net:to { memory_format = "contiguous" }(x), 1e-5, 1e-6))
    net:to { dtype = "float64", memory_format = "channels_last" }
    assert.is_true(net[1].weight.dtype == "float64" and last(net[1].weight))
  end)

  it("agrees with row-major images under transforms", function()
    local x, w = nyx.randn(2, 3, 6, 6, { dtype = "float64" }),
      nyx.randn(4, 3, 3, 3, { dtype = "float64" })
    local function f(t) return t:conv2d(w, nil, { padding = 1 }):relu():max_pool2d(2):sum() end
    local g = nyx.func.grad(f)(x:contiguous("channels_last"))
    assert.is_true(g:allclose(nyx.func.grad(f)(x), 1e-12, 1e-12))
    local function h(t) return t:batch_norm(nil, nil, nil, nil, { training = true }):tanh() end
    local a, b = nyx.func.jvp(h, { x:contiguous("channels_last") }, { x })
    local c, d = nyx.func.jvp(h, { x }, { x })
    assert.is_true(a:allclose(c, 1e-12, 1e-12) and b:allclose(d, 1e-12, 1e-12))
    local many = nyx.stack { x, x * 2 }
    local each = nyx.func.vmap(function(t) return t:contiguous("channels_last"):conv2d(w) end)(many)
    assert.is_true(each:allclose(nyx.stack { x:conv2d(w), (x * 2):conv2d(w) }, 1e-12, 1e-12))
  end)
end)

-- ---------------------------------------------------------------- a residual network

local Block = nyx.class("ChannelsLastSpecBlock", nn.Module)

function Block:init(input, output, stride)
  self.conv1 = nn.Conv2d(input, output, 3, { stride = stride, padding = 1, bias = false })
  self.norm1 = nn.BatchNorm2d(output)
  self.conv2 = nn.Conv2d(output, output, 3, { padding = 1, groups = 2 })
  self.norm2 = nn.BatchNorm2d(output)
  self.shortcut = nn.Conv2d(input, output, 1, { stride = stride, bias = false })
end

function Block:forward(x)
  self.seen = {}
  local function see(y)
    self.seen[#self.seen + 1] = y
    if y.requires_grad then y:retain_grad() end
    return y
  end
  local y = see(see(see(self.conv1(x))))
  y = see(see(self.norm1(y)):relu())
  y = see(self.norm2(see(self.conv2(y))))
  return see(see(y + see(self.shortcut(x))):relu())
end

local function network()
  nyx.manual_seed(7)
  return nn.Sequential(nn.Conv2d(3, 16, 7, { stride = 2, padding = 3 }), nn.ReLU(),
    nn.MaxPool2d(3, { stride = 2, padding = 1 }), Block(16, 24, 1), Block(24, 32, 2),
    nn.AvgPool2d(2), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 5))
end

local function step(net, x)
  net:zero_grad()
  local y = net(x)
  y:pow(2):sum():backward()
  return y
end

describe("a residual network in channels-last", function()
  local x = nyx.randn(4, 3, 64, 64)

  it("gives what it gives in rows, and its gradients", function()
    local rows, turned = network():to("float64"), network():to("float64")
    turned:to { memory_format = "channels_last" }
    local input = x:double()
    local a, b = step(rows, input), step(turned, input:contiguous("channels_last"))
    assert.is_true(b:allclose(a, 1e-10, 1e-10))
    local others = {}
    for name, p in turned:named_parameters() do others[name] = p end
    for name, p in rows:named_parameters() do
      local g = others[name].grad
      assert.is_true(g:allclose(p.grad, 1e-8, 1e-9), name)
      assert.same(others[name]:stride(), g:stride(), name)
    end
  end)

  it("converts no activation and no gradient", function()
    local net = network():to { memory_format = "channels_last" }
    step(net, x:contiguous("channels_last"))
    for i = 4, 5 do
      for k, y in ipairs(net[i].seen) do
        assert.is_true(last(y), "activation " .. k)
        assert.is_true(last(y.grad), "gradient " .. k)
      end
    end
    local report = nyx.profile_backward(step, net, x:contiguous("channels_last"))
    for _, row in ipairs(report) do assert.not_equal("relayout", row.name) end
  end)
end)

-- ---------------------------------------------------------------- a network of slices

-- A unit of ShuffleNet V2: half of the channels go through convolutions, then all are mixed;
-- padding is reflected.
local Unit = nyx.class("ChannelsLastSpecUnit", nn.Module)

function Unit:init(half)
  self.first = nn.Sequential(nn.Conv2d(half, half, 1), nn.BatchNorm2d(half), nn.ReLU())
  self.depthwise = nn.Sequential(nn.Conv2d(half, half, 3, { groups = half }), nn.BatchNorm2d(half))
  self.second = nn.Sequential(nn.Conv2d(half, half, 1), nn.BatchNorm2d(half), nn.ReLU())
  self.half = half
end

function Unit:forward(x)
  local left, right = x:narrow(2, 1, self.half), x:narrow(2, self.half + 1, self.half)
  self.seen = {}
  local function see(y)
    self.seen[#self.seen + 1] = y
    if y.requires_grad then y:retain_grad() end
    return y
  end
  right = see(see(self.first(right)):pad({ 1, 1, 1, 1 }, { mode = "reflect" }))
  right = see(self.second(see(self.depthwise(right))))
  local a = see(nyx.cat({ left, see(right:flip { 4 }) }, 2))
  local b = see(nyx.cat({ right, see(left * 2) }, 2))
  return see(a + see(b:roll({ 1 }, { 2 })))
end

describe("a network of slices in channels-last", function()
  local function shuffled()
    nyx.manual_seed(7)
    return nn.Sequential(nn.Conv2d(3, 16, 3, { padding = 1 }), Unit(8), Unit(8),
      nn.MaxPool2d(2), Unit(8), nn.Conv2d(16, 4, 3))
  end

  local x = nyx.randn(2, 3, 20, 20)

  it("gives what it gives in rows, and its gradients", function()
    local rows, turned = shuffled():to("float64"), shuffled():to("float64")
    turned:to { memory_format = "channels_last" }
    local a = step(rows, x:double())
    local b = step(turned, x:double():contiguous("channels_last"))
    assert.is_true(last(b))
    assert.is_true(b:allclose(a, 1e-10, 1e-10))
    local others = {}
    for name, p in turned:named_parameters() do others[name] = p end
    for name, p in rows:named_parameters() do
      assert.is_true(others[name].grad:allclose(p.grad, 1e-8, 1e-8), name)
    end
  end)

  it("copies nothing to another layout, forward or backward", function()
    local net, input = shuffled():to { memory_format = "channels_last" },
      x:contiguous("channels_last")
    step(net, input)
    for _, i in ipairs { 2, 3, 5 } do
      for k, y in ipairs(net[i].seen) do
        assert.is_true(last(y), "activation " .. k)
        assert.is_true(ordered(y.grad), "gradient " .. k)
      end
    end
    local report = nyx.profile_backward(step, net, input)
    for _, row in ipairs(report) do assert.not_equal("relayout", row.name) end
  end)
end)
