-- Memory formats: contiguous, to, is_contiguous and what is made like another tensor;
-- results that lie in memory as their inputs do; a residual block, forward and backward,
-- that stays channels-last all the way. Read next: spec/c/last_test.c, core/op/conv_last.c.
local nyx = require "nyx"
local nn = nyx.nn

local function last(x) return x:is_contiguous("channels_last") and not x:is_contiguous() end

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
    for name, op in pairs(ops) do assert.is_true(last(op()), name) end
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

  it("is one order of dimensions among others", function()
    local x = nyx.randn(3, 4)
    assert.same({ 1, 4 }, x:t():exp():stride())
    assert.is_true(x:t():exp():equal(x:exp():t()))
    assert.same({ 1, 4 }, (x:t() + nyx.randn(1, 3)):stride())
    assert.same({ 3, 1 }, x:t():exp():contiguous():stride())
    assert.same({ 2, 1 }, x:narrow(2, 1, 2):exp():stride()) -- gaps are not kept
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
