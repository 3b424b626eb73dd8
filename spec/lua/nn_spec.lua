-- nyx.nn: modules and their state, layers against independent formulas and finite
-- differences, losses against PyTorch 2.13 (values and gradients, in float64).
local nyx = require "nyx"
local nn = nyx.nn

local f64 = { dtype = "float64" }

local function tensor(values) return nyx.tensor(values, f64) end

local function flat(t) return t:reshape({ -1 }):totable() end

local function close(expected, got, tolerance)
  expected = nyx.is_tensor(expected) and flat(expected) or expected
  got = nyx.is_tensor(got) and flat(got) or got
  assert.are.equal(#expected, #got)
  for i = 1, #expected do
    local difference = math.abs(expected[i] - got[i])
    assert.is_true(difference <= (tolerance or 1e-10) * math.max(1, math.abs(expected[i])),
      ("element %d: expected %.12g, got %.12g"):format(i, expected[i], got[i]))
  end
end

local function message_of(...)
  local ok, text = pcall(...)
  assert.is_false(ok)
  return text
end

-- A small model of one's own.
local Net = nyx.class("SpecNet", nn.Module)

function Net:init()
  self.first = nn.Linear(3, 4)
  self.scale = nn.Parameter(nyx.ones({ 4 }))
  self.second = nn.Linear(4, 2, { bias = false })
  self.label = "net"
  self.plain = nyx.zeros({ 2 })
  self:register_buffer("count", nyx.zeros({ 1 }))
end

function Net:forward(x)
  return self.second((self.first(x) * self.scale):relu())
end

local function names_of(iterator)
  local names = {}
  for name in iterator do names[#names + 1] = name end
  return names
end

describe("nn.Module", function()
  it("finds parameters, buffers and submodules in the order of assignment", function()
    local net = Net()
    assert.are.same({ "scale", "first.weight", "first.bias", "second.weight" },
      names_of(net:named_parameters()))
    assert.are.same({ "count" }, names_of(net:named_buffers()))
    assert.are.same({ "first", "second" }, names_of(net:named_modules()))
    assert.are.equal(4, #net:parameters())
    assert.are.equal(1, #net:buffers())
    assert.are.equal(3, #net:modules())
    assert.are.equal(2, #net:children())
    assert.are.equal(4 + 12 + 4 + 8, net:parameter_count())
  end)

  it("finds fields that became modules or parameters later", function()
    local net = Net()
    net.label = nn.Linear(1, 1)
    net.plain = nn.Parameter(nyx.zeros({ 3 }))
    assert.are.same({ "scale", "plain", "first.weight", "first.bias", "second.weight",
      "label.weight", "label.bias" }, names_of(net:named_parameters()))
    net.first, net.label, net.plain = nil, "again", nyx.zeros({ 1 })
    net.plain:requires_grad_(false)
    assert.are.same({ "scale", "plain", "second.weight" }, names_of(net:named_parameters()))
  end)

  it("counts a shared tensor or module once", function()
    local a = nn.Linear(2, 2)
    local net = nn.Sequential(a, a, nn.Linear(2, 2))
    net[3].weight = a.weight
    assert.are.equal(3, #net:parameters())
    assert.are.equal(3, #net:modules())
  end)

  it("train, eval, apply, zero_grad and requires_grad_ reach everything", function()
    local net = Net()
    assert.is_true(net.training)
    net:eval()
    assert.is_false(net.first.training)
    net:train()
    assert.is_true(net.second.training)
    local seen = {}
    net:apply(function(module) seen[#seen + 1] = module:class_name() end)
    assert.are.same({ "Linear", "Linear", "SpecNet" }, seen)
    net(nyx.ones({ 1, 3 })):sum():backward()
    assert.is_not_nil(net.second.weight.grad)
    net:zero_grad()
    for _, p in ipairs(net:parameters()) do assert.is_nil(p.grad) end
    net:requires_grad_(false)
    assert.is_false(net(nyx.ones({ 1, 3 })).requires_grad)
    assert.are.equal(4, #net:parameters())
    net:requires_grad_()
    assert.is_true(net.scale.requires_grad)
  end)

  it("converts floats with to(dtype), and keeps sharing", function()
    local net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    net[3].weight = net[1].weight
    net:to("float64")
    assert.are.equal("float64", net[1].weight.dtype)
    assert.are.equal("float64", net[2].running_var.dtype)
    assert.are.equal("int64", net[2].num_batches_tracked.dtype)
    assert.is_true(rawequal(net[1].weight, net[3].weight))
    assert.is_true(net[1].weight.requires_grad)
    assert.is_true(net[1].weight.is_leaf)
    assert.is_false(net[2].running_mean.requires_grad)
    assert.are.equal("float64", net(nyx.ones({ 2, 2 }, f64)).dtype)
  end)

  it("is as it was where to(...) fails half-way", function()
    local net = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    local before = {}
    for name, parameter in net:named_parameters() do before[name] = parameter end
    collectgarbage()
    collectgarbage()
    -- Room for the first layer's 33 KB in float64, not for the second's.
    local limit = nyx.memory_limit(nyx.memory().live + 50000)
    local ok, message = pcall(net.to, net, "float64")
    nyx.memory_limit(limit)
    assert.is_false(ok)
    assert.matches("memory limit", message)
    for name, parameter in net:named_parameters() do
      assert.is_true(rawequal(before[name], parameter), name)
      assert.are.equal("float32", parameter.dtype)
    end
  end)

  it("says what is wrong with the target of to", function()
    local net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert.matches("nn_spec.lua:%d+: to: no device 'float99'; known: cpu.*; nor is it a dtype",
      message_of(function() net:to("float99") end))
    for _, target in ipairs { "int64", { dtype = "int64" }, "bool", "i64" } do
      assert.matches("to: 'dtype' is string '[%w]+', expected a float dtype: float32, float64",
        message_of(net.to, net, target))
    end
    assert.matches("'dtype' is number 7", message_of(net.to, net, { dtype = 7 }))
    net:to("f64") -- a short name is no device
    assert.are.equal("float64", net[1].weight.dtype)
    assert.are.equal("int64", net[2].num_batches_tracked.dtype)
  end)

  it("prints as a tree", function()
    local net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(),
      nn.Sequential(nn.Dropout(0.25), nn.LeakyReLU(0.2)), nn.Linear(32, 10, { bias = false }))
    assert.are.equal([[
Sequential(
  (1): Linear(in_features=64, out_features=32, bias=true)
  (2): ReLU()
  (3): Sequential(
    (1): Dropout(p=0.25)
    (2): LeakyReLU(negative_slope=0.2)
  )
  (4): Linear(in_features=32, out_features=10, bias=false)
)
2400 parameters]], tostring(net))
    assert.are.equal("Conv2d(1, 8, kernel_size=3, padding={1, 2})\n80 parameters",
      tostring(nn.Conv2d(1, 8, 3, { padding = { 1, 2 } })))
  end)

  it("says what a module without forward lacks", function()
    local Empty = nyx.class("Empty", nn.Module)
    assert.matches("nn_spec.lua:%d+: Empty defines no forward", message_of(function()
      Empty()(1)
    end))
  end)
end)

describe("state_dict", function()
  it("round-trips through load_state_dict", function()
    local a, b = Net(), Net()
    nyx.no_grad(function() a.count:fill_(5) end)
    local state = a:state_dict()
    local names = {}
    for name in pairs(state) do names[#names + 1] = name end
    table.sort(names)
    assert.are.same({ "count", "first.bias", "first.weight", "scale", "second.weight" }, names)
    local result = b:load_state_dict(state)
    assert.are.same({ missing = {}, unexpected = {} }, result)
    local x = nyx.randn({ 5, 3 })
    assert.is_true(a(x):equal(b(x)))
    assert.are.equal(5, b.count:item())
    -- Copies, not shares.
    nyx.no_grad(function() a.first.bias:add_(1) end)
    assert.is_false(a.first.bias:equal(b.first.bias))
  end)

  it("lists everything that does not fit, and changes nothing", function()
    local net = Net()
    local before = net.scale:clone()
    local state = Net():state_dict()
    state.scale = state.scale + 1
    state["first.bias"] = nil
    state["second.weight"] = nyx.zeros({ 4, 2 })
    state["third.weight"] = nyx.zeros({ 1 })
    state["first.weight"] = "text"
    local text = message_of(function() net:load_state_dict(state) end)
    assert.matches("nn_spec.lua:%d+: load_state_dict: the state does not fit SpecNet", text)
    assert.matches("missing: first.bias", text, 1, true)
    assert.matches("unexpected: third.weight", text, 1, true)
    assert.matches("second.weight has shape (4x2), expected (2x4)", text, 1, true)
    assert.matches("first.weight is string 'text', expected a tensor", text, 1, true)
    assert.is_true(before:equal(net.scale))
  end)

  it("strict = false allows missing and unexpected names, not wrong shapes", function()
    local net = Net()
    local result = net:load_state_dict({ scale = nyx.full({ 4 }, 3), other = nyx.ones({ 1 }) },
      { strict = false })
    assert.are.same({ "other" }, result.unexpected)
    assert.are.same({ "count", "first.weight", "first.bias", "second.weight" }, result.missing)
    assert.are.same({ 3, 3, 3, 3 }, net.scale:totable())
    assert.has_error(function()
      net:load_state_dict({ scale = nyx.ones({ 5 }) }, { strict = false })
    end)
  end)

  it("fills a shared tensor from either of its names", function()
    local net = nn.Sequential(nn.Linear(1, 1, { bias = false }), nn.Linear(1, 1, { bias = false }))
    net[2].weight = net[1].weight
    net:load_state_dict({ ["2.weight"] = nyx.full({ 1, 1 }, 7) })
    assert.are.equal(7, net[1].weight:item())
    assert.has_error(function() net:load_state_dict({}) end)
  end)
end)

describe("starting values", function()
  local function spread(t)
    return t:min():item(), t:max():item()
  end

  it("fill the ranges they should", function()
    nyx.manual_seed(1)
    local w = nn.Parameter(nyx.zeros({ 200, 100 }))
    local function expect(bound)
      local low, high = spread(w)
      assert.is_true(low >= -bound and low < -0.97 * bound, "low end")
      assert.is_true(high <= bound and high > 0.97 * bound, "high end")
    end
    nn.init.kaiming_uniform_(w, { nonlinearity = "relu" })
    expect(math.sqrt(6 / 100))
    nn.init.kaiming_uniform_(w, { a = math.sqrt(5) })
    expect(1 / math.sqrt(100))
    nn.init.kaiming_uniform_(w, { nonlinearity = "relu", mode = "fan_out" })
    expect(math.sqrt(6 / 200))
    nn.init.xavier_uniform_(w, 2)
    expect(2 * math.sqrt(6 / 300))
    nn.init.uniform_(w, 3, 4)
    local low, high = spread(w)
    assert.is_true(low >= 3 and high <= 4)
    local function deviation(expected)
      close({ expected }, { w:std():item() }, 0.02)
      assert.is_true(math.abs(w:mean():item()) < 0.02 * expected)
    end
    nn.init.normal_(w, 0, 0.5)
    deviation(0.5)
    nn.init.kaiming_normal_(w, { nonlinearity = "relu" })
    deviation(math.sqrt(2 / 100))
    nn.init.xavier_normal_(w)
    deviation(math.sqrt(2 / 300))
    nn.init.ones_(w)
    assert.are.equal(20000, w:sum():item())
    nn.init.zeros_(w)
    assert.are.equal(0, w:abs():sum():item())
    assert.is_true(w.requires_grad and w.is_leaf)
    assert.matches("no fans", message_of(nn.init.xavier_uniform_, nyx.zeros({ 3 })))
  end)

  it("of layers are PyTorch's", function()
    nyx.manual_seed(2)
    local function within(t, bound)
      local low, high = spread(t)
      assert.is_true(low >= -bound and high <= bound and high > 0.8 * bound)
    end
    local linear = nn.Linear(400, 300)
    within(linear.weight, 1 / 20)
    within(linear.bias, 1 / 20)
    local conv = nn.Conv2d(4, 64, 5, { groups = 2 })
    assert.are.same({ 64, 2, 5, 5 }, conv.weight.shape)
    within(conv.weight, 1 / math.sqrt(50))
    within(conv.bias, 1 / math.sqrt(50))
    local embedding = nn.Embedding(100, 50, { padding_idx = 3 })
    close({ 1 }, { embedding.weight:std():item() }, 0.05)
    assert.are.equal(0, embedding.weight[3]:abs():sum():item())
    nyx.manual_seed(2)
    assert.is_true(linear.weight:equal(nn.Linear(400, 300).weight))
  end)
end)

-- The gradients of a layer by its input and its parameters.
local function gradcheck(layer, x)
  layer:to("float64")
  local inputs = { x:requires_grad_(true) }
  for _, p in ipairs(layer:parameters()) do inputs[#inputs + 1] = p end
  nyx.gradcheck(function() return layer(x) end, inputs, { atol = 1e-6, rtol = 1e-6 })
end

describe("layers", function()
  before_each(function() nyx.manual_seed(5) end)

  it("Linear is x W^T + b", function()
    local layer = nn.Linear(3, 2)
    layer:load_state_dict({ weight = nyx.tensor({ { 1, 2, 3 }, { -1, 0, 0.5 } }),
      bias = nyx.tensor({ 10, -20 }) })
    close({ 24, -19.5, 10, -20 }, layer(nyx.tensor({ { 1, 2, 3 }, { 0, 0, 0 } })))
    gradcheck(nn.Linear(4, 3), nyx.randn({ 2, 5, 4 }, f64))
    gradcheck(nn.Linear(4, 3, { bias = false }), nyx.randn({ 6, 4 }, f64))
  end)

  -- The definition of convolution, one product at a time; 1-based, zero outside.
  local function naive_conv(x, w, b, stride, padding, dilation, groups)
    local n, height, width = x:size(1), x:size(3), x:size(4)
    local out_channels, per_group, kh, kw = w:size(1), w:size(2), w:size(3), w:size(4)
    local oh = math.floor((height + 2 * padding - dilation * (kh - 1) - 1) / stride) + 1
    local ow = math.floor((width + 2 * padding - dilation * (kw - 1) - 1) / stride) + 1
    local xs, ws, bs = x:totable(), w:totable(), b:totable()
    local out = {}
    for image = 1, n do
      for o = 1, out_channels do
        local group = math.floor((o - 1) / (out_channels / groups))
        for i = 0, oh - 1 do
          for j = 0, ow - 1 do
            local sum = bs[o]
            for c = 1, per_group do
              for a = 0, kh - 1 do
                for e = 0, kw - 1 do
                  local channel = xs[image][group * per_group + c]
                  local row = channel[i * stride - padding + a * dilation + 1]
                  local value = row and row[j * stride - padding + e * dilation + 1] or 0
                  sum = sum + value * ws[o][c][a + 1][e + 1]
                end
              end
            end
            out[#out + 1] = sum
          end
        end
      end
    end
    return out
  end

  it("Conv2d is the sum of products under the window", function()
    for _, case in ipairs { { 1, 0, 1, 1 }, { 2, 1, 1, 1 }, { 1, 2, 2, 2 } } do
      local stride, padding, dilation, groups = case[1], case[2], case[3], case[4]
      local layer = nn.Conv2d(4, 6, { 3, 2 }, { stride = stride, padding = padding,
        dilation = dilation, groups = groups, dtype = "float64" })
      local x = nyx.randn({ 2, 4, 7, 6 }, f64)
      close(naive_conv(x, layer.weight, layer.bias, stride, padding, dilation, groups), layer(x))
    end
    gradcheck(nn.Conv2d(2, 3, 3, { padding = 1, stride = 2 }), nyx.randn({ 2, 2, 5, 4 }, f64))
    assert.matches("3 groups do not divide", message_of(nn.Conv2d, 4, 6, 3, { groups = 3 }))
  end)

  it("pooling takes the largest, or the mean, of each window", function()
    local x = nyx.arange(1, 33, f64):reshape({ 1, 2, 4, 4 })
    close({ 6, 8, 14, 16, 22, 24, 30, 32 }, nn.MaxPool2d(2)(x))
    close({ 3.5, 5.5, 11.5, 13.5, 19.5, 21.5, 27.5, 29.5 }, nn.AvgPool2d(2)(x))
    assert.are.same({ 1, 2, 3, 3 }, nn.MaxPool2d(2, { stride = 1 })(x).shape)
    assert.are.same({ 1, 2, 3, 3 }, nn.AvgPool2d(2, { padding = 1 })(x).shape)
    gradcheck(nn.MaxPool2d(2), nyx.randn({ 1, 2, 4, 4 }, f64))
    gradcheck(nn.AvgPool2d(2), nyx.randn({ 1, 2, 4, 4 }, f64))
  end)

  it("BatchNorm normalises batches, tracks statistics, uses them in evaluation", function()
    -- torch.nn.BatchNorm1d(3, momentum=0.2) in float64: two training steps, then eval.
    local x = nyx.arange(0, 24, f64):reshape({ 4, 3, 2 }) * 0.5 - 3
    x[2] = -x[2]
    local layer = nn.BatchNorm1d(3, { momentum = 0.2, dtype = "float64" })
    layer:load_state_dict({ weight = tensor { 1, 2, -0.5 }, bias = tensor { 0, 1, 0.25 } },
      { strict = false })
    close({ -0.474376535229, -0.620338546068, -0.649347237575, -0.913242795587,
      0.787872373789, 0.846020738522 }, layer(x)[2])
    layer(x + 1)
    close({ 0.785, 0.965, 1.145 }, layer.running_mean)
    close({ 5.467857142857143, 6.5478571428571435, 8.245 }, layer.running_var)
    assert.are.equal(2, layer.num_batches_tracked:item())
    layer:eval()
    close({ -0.335707218674, -0.549533472607, -0.535828140997, -0.926624105627,
      0.797639872606, 0.884705035182 }, layer(x)[2])
    assert.are.equal(2, layer.num_batches_tracked:item())
    gradcheck(nn.BatchNorm2d(2), nyx.randn({ 3, 2, 2, 2 }, f64))
    gradcheck(nn.BatchNorm1d(3):eval(), nyx.randn({ 4, 3 }, f64))
    assert.matches("nn.BatchNorm2d: the input has shape %(2x3%)",
      message_of(nn.BatchNorm2d(3), nyx.ones({ 2, 3 })))
    local free = nn.BatchNorm1d(2, { affine = false, track_running_stats = false })
    assert.are.same({}, free:state_dict())
    close({ -1, -1, 1, 1 }, free:eval()(nyx.tensor({ { 0, 5 }, { 2, 9 } })), 1e-4)
  end)

  it("batch_norm with known statistics gives the same with and without gradients", function()
    local function near(expected, got, tolerance)
      assert.are.same(expected.shape, got.shape)
      if got:numel() == 0 then return end
      assert.is_true(((expected - got):abs() / (expected:abs() + 1)):max():item() <= tolerance)
    end
    local function check(dtype, exact, shape)
      local x, channels = nyx.randn(shape, { dtype = dtype }), { shape[2] }
      local function values(least) return nyx.rand(channels, { dtype = dtype }) + least end
      local function of(t, missing)
        if not t then return missing end
        for _ = 3, #shape do t = t:unsqueeze(-1) end
        return t
      end
      local mean, var = values(-0.5), values(0.5)
      for _, given in ipairs { { values(0.5), values(-0.5) }, { values(0.5) }, {} } do
        local weight, bias = given[1], given[2]
        local plain = x:batch_norm(weight, bias, mean, var)
        local leaf = x:detach():requires_grad_(true)
        near(leaf:batch_norm(weight, bias, mean, var):detach(), plain, exact)
        local normal = (x - of(mean)) / (of(var) + 1e-5):sqrt()
        near(normal * of(weight, 1) + of(bias, 0), plain, 8 * exact)
      end
    end
    for _, shape in ipairs { { 2, 3, 7, 7 }, { 5, 2, 9, 7 }, { 1, 2, 130, 131 }, { 3, 1, 300 },
        { 2, 3, 5 }, { 4, 3 }, { 0, 3, 8, 8 }, { 2, 0, 8, 8 } } do
      check("float32", 4e-7, shape)
      check("float64", 8e-16, shape)
    end
    check("float32", 4e-7, { 2, 3, 901, 777 }) -- larger than caches
    check("float32", 4e-7, { 800, 21, 17, 17 })
  end)

  it("LayerNorm and RMSNorm follow their formulas", function()
    local x = nyx.randn({ 2, 3, 4 }, f64)
    local rows = x:reshape({ 2, 12 }):totable()
    local layer = nn.LayerNorm({ 3, 4 }, { dtype = "float64" })
    nyx.no_grad(function()
      layer.weight:copy_(nyx.randn({ 3, 4 }, f64))
      layer.bias:copy_(nyx.randn({ 3, 4 }, f64))
    end)
    local w, b, expected = flat(layer.weight), flat(layer.bias), {}
    local rms = nn.RMSNorm({ 3, 4 }, { eps = 1e-3, dtype = "float64" })
    local expected_rms = {}
    for _, row in ipairs(rows) do
      local mean, square, var = 0, 0, 0
      for _, v in ipairs(row) do mean, square = mean + v / 12, square + v * v / 12 end
      for _, v in ipairs(row) do var = var + (v - mean) ^ 2 / 12 end
      for i, v in ipairs(row) do
        expected[#expected + 1] = (v - mean) / math.sqrt(var + 1e-5) * w[i] + b[i]
        expected_rms[#expected_rms + 1] = v / math.sqrt(square + 1e-3)
      end
    end
    close(expected, layer(x))
    close(expected_rms, rms(x))
    gradcheck(layer, nyx.randn({ 2, 3, 4 }, f64))
    gradcheck(nn.RMSNorm(5), nyx.randn({ 3, 5 }, f64))
    assert.are.equal(0, #nn.LayerNorm(4, { elementwise_affine = false }):parameters())
    assert.are.equal(1, #nn.LayerNorm(4, { bias = false }):parameters())
  end)

  it("GroupNorm follows its formula, as LayerNorm of one group does", function()
    local layer, x = nn.GroupNorm(2, 4, { dtype = "float64" }), nyx.randn({ 3, 4, 5 }, f64)
    nyx.no_grad(function()
      layer.weight:copy_(nyx.randn({ 4 }, f64))
      layer.bias:copy_(nyx.randn({ 4 }, f64))
    end)
    local function formula(t, groups, eps)
      local rows = t:reshape({ t.shape[1], groups, -1 })
      local mean = rows:mean(3, true)
      local hat = (rows - mean) / ((rows - mean):square():mean(3, true) + eps):sqrt()
      return hat:reshape(t.shape)
    end
    local w, b = layer.weight:reshape({ 4, 1 }), layer.bias:reshape({ 4, 1 })
    local expected = formula(x, 2, 1e-5) * w + b
    close(flat(expected), layer(x))
    gradcheck(layer, nyx.randn({ 2, 4, 3 }, f64))
    gradcheck(nn.GroupNorm(3, 6), nyx.randn({ 2, 6 }, f64))
    gradcheck(nn.GroupNorm(1, 2), nyx.randn({ 2, 2, 6, 7 }, f64))
    close(flat(x:layer_norm(nil, nil, { 4, 5 })), x:group_norm { num_groups = 1 })
    close(flat(formula(x, 4, 0.1)), nn.GroupNorm(4, 4, { affine = false, eps = 0.1 })(x))
    local state = layer:state_dict()
    assert.are.same({ { 4 }, { 4 } }, { state.weight.shape, state.bias.shape })
    local each = nyx.func.vmap(function(t) return layer(t) end)(x:reshape({ 3, 1, 4, 5 }))
    close(flat(layer(x)), each)
    assert.are.equal(0, #nn.GroupNorm(2, 4, { affine = false }):parameters())
    assert.matches("GroupNorm%(2, 4, eps=1e%-05, affine=true%)", tostring(layer))
  end)

  it("GroupNorm says what does not fit", function()
    local x = nyx.ones({ 2, 6, 3 })
    assert.matches("num_groups = 4, expected a divisor of the 6 channels of the input %(2x6x3%)",
      message_of(x.group_norm, x, { num_groups = 4 }))
    assert.matches("num_groups = 0", message_of(x.group_norm, x, { num_groups = 0 }))
    assert.matches("weight.*%(3%).*%(6%)", message_of(x.group_norm, x, nyx.ones({ 3 }),
      { num_groups = 2 }))
    assert.matches("the input has shape %(6%), expected %(batch, channels%)",
      message_of(x.group_norm, nyx.ones({ 6 }), { num_groups = 2 }))
    assert.matches("nn.GroupNorm: num_groups = 4, expected a divisor of the 6 channels",
      message_of(nn.GroupNorm, 4, 6))
    assert.matches("nn.GroupNorm: the input has shape %(2x6x3%), expected %(batch, 4%)",
      message_of(nn.GroupNorm(2, 4), x))
  end)

  it("Dropout zeroes a share p and scales the rest, in training only", function()
    local x = nyx.ones({ 100, 100 })
    local layer = nn.Dropout(0.3)
    local y = layer(x)
    local kept = y:gt(0):to("float32"):mean():item()
    assert.is_true(math.abs(kept - 0.7) < 0.03)
    close({ 1 / 0.7 }, { y:max():item() }, 1e-6)
    assert.is_false(y:equal(layer(x)))
    nyx.manual_seed(5)
    assert.is_true(y:equal(layer(x)))
    assert.is_true(layer:eval()(x):equal(x))
    -- The gradient goes where the value went.
    layer:train()
    local leaf = nyx.ones({ 50 }):requires_grad_(true)
    local out = layer(leaf)
    out:sum():backward()
    assert.is_true(leaf.grad:equal(out:detach()))
    assert.matches("'p' is number 2", message_of(nn.Dropout, 2))
  end)

  it("Embedding gives rows, and gradients to the rows used", function()
    local layer = nn.Embedding(4, 2, { padding_idx = 4 })
    layer:load_state_dict({ weight = nyx.tensor({ { 1, 2 }, { 3, 4 }, { 5, 6 }, { 0, 0 } }) })
    local labels = nyx.tensor({ { 3, 1 }, { 3, 4 } }, { dtype = "int64" })
    local out = layer(labels)
    assert.are.same({ { { 5, 6 }, { 1, 2 } }, { { 5, 6 }, { 0, 0 } } }, out:totable())
    out:sum():backward()
    assert.are.same({ { 1, 1 }, { 0, 0 }, { 2, 2 }, { 0, 0 } }, layer.weight.grad:totable())
    assert.has_error(function() layer(nyx.tensor({ 5 }, { dtype = "int64" })) end)
    assert.has_error(function() layer(nyx.tensor({ 0 }, { dtype = "int64" })) end)
  end)

  it("Flatten, Identity, Sequential and ModuleList", function()
    local x = nyx.randn({ 2, 3, 4, 5 })
    assert.are.same({ 2, 60 }, nn.Flatten()(x).shape)
    assert.are.same({ 2, 12, 5 }, nn.Flatten(2, 3)(x).shape)
    assert.is_true(rawequal(x, nn.Identity()(x)))
    local net = nn.Sequential(nn.Linear(5, 3), nn.Tanh())
    assert.is_true(net(x):equal(net[1](x):tanh()))
    assert.are.equal(2, #net)
    assert.matches("element 2 is number 3, expected a module",
      message_of(nn.Sequential, nn.Tanh(), 3))
    local holder = nn.Module()
    holder.layers = nn.ModuleList({ nn.Linear(1, 1), nn.Linear(1, 1) })
    holder.layers:append(nn.Linear(1, 1))
    assert.are.equal(6, #holder:parameters())
  end)

  it("activations apply the op of their row", function()
    local x = nyx.linspace(-3, 3, 13, f64)
    for name, expected in pairs {
      ReLU = function(v) return math.max(v, 0) end,
      ReLU6 = function(v) return math.min(math.max(v, 0), 6) end,
      LeakyReLU = function(v) return v > 0 and v or 0.01 * v end,
      ELU = function(v) return v > 0 and v or math.exp(v) - 1 end,
      SiLU = function(v) return v / (1 + math.exp(-v)) end,
      Mish = function(v)
        local e = 1 + math.exp(v)
        return v * (e * e - 1) / (e * e + 1)
      end,
      Softplus = function(v) return math.log(1 + math.exp(v)) end,
      Sigmoid = function(v) return 1 / (1 + math.exp(-v)) end,
      Tanh = function(v) return 1 - 2 / (math.exp(2 * v) + 1) end,
      Hardtanh = function(v) return math.min(math.max(v, -1), 1) end,
      Hardswish = function(v) return v * math.min(math.max(v + 3, 0), 6) / 6 end,
    } do
      local values = {}
      for i, v in ipairs(x:totable()) do values[i] = expected(v) end
      close(values, nn[name]()(x), 1e-9)
    end
    close({ -0.4, -0.2, 0 }, nn.LeakyReLU(0.2)(tensor { -2, -1, 0 }))
    close({ -2, 0, 1.5 }, nn.Hardtanh(-2, 1.5)(tensor { -9, 0, 9 }))
    close({ 1, 1 }, nn.Softmax()(nyx.randn({ 2, 5 }, f64)):sum(2))
    close({ 1, 1 }, nn.Softmax(1)(nyx.randn({ 5, 2 }, f64)):sum(1))
    close({ 1, 1 }, nn.LogSoftmax()(nyx.randn({ 2, 5 }, f64)):exp():sum(2))
    -- GELU(1) = (1 + erf(1 / sqrt 2)) / 2; the tanh form differs in the fourth digit.
    close({ 0.841344746068543 }, nn.GELU()(tensor { 1 }))
    close({ 0.841191990608276 }, nn.GELU("tanh")(tensor { 1 }))
    close({ -1.1113307378125628, 1.0507009873554805 }, nn.SELU()(tensor { -1, 1 }), 1e-9)
    assert.matches("'negative_slope' is string 'a'", message_of(nn.LeakyReLU, "a"))
  end)

  it("Linear has an activation and adds a residual in the same pass", function()
    nyx.manual_seed(5)
    local layer = nn.Linear(5, 4, { activation = "gelu", dtype = "float64" })
    local x, r = nyx.randn({ 3, 5 }, f64), nyx.randn({ 3, 4 }, f64)
    local leaves = { x, r, layer.weight, layer.bias }
    x:requires_grad_() r:requires_grad_()
    local function gradients(y)
      for _, leaf in ipairs(leaves) do leaf.grad = nil end
      y:square():sum():backward()
      local all = {}
      for i, leaf in ipairs(leaves) do all[i] = leaf.grad:clone() end
      return all
    end
    local plain = x:linear(layer.weight, layer.bias):gelu() + r
    local fused, second = layer(x, r)
    assert.is_nil(second)
    close(plain, fused)
    local a, b = gradients(plain), gradients(fused)
    for i = 1, #leaves do close(a[i], b[i]) end
    nyx.no_grad(function() close(plain - r, layer(x)) end)
    assert.matches("activation=gelu", tostring(layer))
    local linear = nn.Linear(5, 4, f64)
    close(x:linear(linear.weight, linear.bias) + r, linear(x, r))
    r.grad, layer.weight.grad = nil, nil -- nothing but the residual is trained
    layer:requires_grad_(false)
    layer(x:detach(), r):sum():backward()
    close(nyx.ones({ 3, 4 }, f64), r.grad)
    assert.is_nil(layer.weight.grad)
  end)

  it("Linear says what an activation can be", function()
    local x = nyx.zeros { 2, 3 }
    for _, name in ipairs { "nonsense", "add", "where", "sum", "logical_not" } do
      local layer = nn.Linear(3, 4, { activation = name })
      assert.matches("activation.*" .. name .. ".*expected.*relu", message_of(layer, x))
    end
    assert.matches("'activation' is number", message_of(nn.Linear, 3, 4, { activation = 1 }))
    local layer = nn.Linear(3, 4)
    assert.matches("residual", message_of(layer, x, nyx.zeros { 2, 3 }))
  end)
end)

-- torch.nn.<name>(**options)(input, target): values, then the gradient of their sum.
local losses = {
  { "MSELoss", { reduction = "mean" }, "plain",
    { 1.20666666667 },
    { -0.1, -0.166666666667, -0.266666666667, 0.633333333333, -0.1, 0.533333333333 } },
  { "MSELoss", { reduction = "sum" }, "plain",
    { 7.24 },
    { -0.6, -1, -1.6, 3.8, -0.6, 3.2 } },
  { "MSELoss", { reduction = "none" }, "plain",
    { 0.09, 0.25, 0.64, 3.61, 0.09, 2.56 },
    { -0.6, -1, -1.6, 3.8, -0.6, 3.2 } },
  { "L1Loss", { reduction = "mean" }, "plain",
    { 0.9 },
    { -0.166666666667, -0.166666666667, -0.166666666667,
      0.166666666667, -0.166666666667, 0.166666666667 } },
  { "L1Loss", { reduction = "sum" }, "plain",
    { 5.4 },
    { -1, -1, -1, 1, -1, 1 } },
  { "L1Loss", { reduction = "none" }, "plain",
    { 0.3, 0.5, 0.8, 1.9, 0.3, 1.6 },
    { -1, -1, -1, 1, -1, 1 } },
  { "HuberLoss", { delta = 0.5, reduction = "mean" }, "plain",
    { 0.331666666667 },
    { -0.05, -0.0833333333333, -0.0833333333333, 0.0833333333333, -0.05, 0.0833333333333 } },
  { "HuberLoss", { delta = 0.5, reduction = "sum" }, "plain",
    { 1.99 },
    { -0.3, -0.5, -0.5, 0.5, -0.3, 0.5 } },
  { "HuberLoss", { delta = 0.5, reduction = "none" }, "plain",
    { 0.045, 0.125, 0.275, 0.825, 0.045, 0.675 },
    { -0.3, -0.5, -0.5, 0.5, -0.3, 0.5 } },
  { "SmoothL1Loss", { beta = 0.4, reduction = "mean" }, "plain",
    { 0.704166666667 },
    { -0.125, -0.166666666667, -0.166666666667, 0.166666666667, -0.125, 0.166666666667 } },
  { "SmoothL1Loss", { beta = 0.4, reduction = "sum" }, "plain",
    { 4.225 },
    { -0.75, -1, -1, 1, -0.75, 1 } },
  { "SmoothL1Loss", { beta = 0.4, reduction = "none" }, "plain",
    { 0.1125, 0.3, 0.6, 1.7, 0.1125, 1.4 },
    { -0.75, -1, -1, 1, -0.75, 1 } },
  { "BCELoss", { reduction = "mean" }, "probability",
    { 1.20974347496 },
    { 0.208333333333, -0.185185185185, 0.208333333333,
      -16.6666666667, 0.333333333333, 0.222222222222 } },
  { "BCELoss", { reduction = "sum" }, "probability",
    { 7.25846084975 },
    { 1.25, -1.11111111111, 1.25, -100, 2, 1.33333333333 } },
  { "BCELoss", { reduction = "none" }, "probability",
    { 0.223143551314, 0.105360515658, 0.794651199442,
      4.60517018599, 0.69314718056, 0.836988216786 },
    { 1.25, -1.11111111111, 1.25, -100, 2, 1.33333333333 } },
  { "BCEWithLogitsLoss", { reduction = "mean" }, "logit",
    { 0.829513019961 },
    { 0.0916389995521, -0.136262412699, 0.0613646286947,
      -0.0198671536704, 0.0874965312465, -0.0164479433521 } },
  { "BCEWithLogitsLoss", { reduction = "sum" }, "logit",
    { 4.97707811977 },
    { 0.549833997312, -0.817574476194, 0.368187772168,
      -0.119202922022, 0.524979187479, -0.0986876601125 } },
  { "BCEWithLogitsLoss", { reduction = "none" }, "logit",
    { 0.798138869382, 1.70141327798, 0.893186048885, 0.126928011043, 0.744396660074, 0.7130152524 },
    { 0.549833997312, -0.817574476194, 0.368187772168,
      -0.119202922022, 0.524979187479, -0.0986876601125 } },
  { "CrossEntropyLoss", { reduction = "mean" }, "class",
    { 0.378057721089 },
    { 0.176590786639, 0.0322602272185, -0.208851013858,
      -0.0968673602688, 0.0602959922882, 0.0365713679806 } },
  { "CrossEntropyLoss", { reduction = "sum" }, "class",
    { 0.756115442178 },
    { 0.353181573279, 0.0645204544371, -0.417702027716,
      -0.193734720538, 0.120591984576, 0.0731427359612 } },
  { "CrossEntropyLoss", { reduction = "none" }, "class",
    { 0.540772982398, 0.21534245978 },
    { 0.353181573279, 0.0645204544371, -0.417702027716,
      -0.193734720538, 0.120591984576, 0.0731427359612 } },
  { "CrossEntropyLoss", { label_smoothing = 0.1, reduction = "mean" }, "class",
    { 0.494724387756 },
    { 0.159924119973, 0.0155935605519, -0.175517680525,
      -0.0635340269354, 0.0436293256215, 0.0199047013139 } },
  { "CrossEntropyLoss", { label_smoothing = 0.1, reduction = "sum" }, "class",
    { 0.989448775512 },
    { 0.319848239945, 0.0311871211037, -0.351035361049,
      -0.127068053871, 0.087258651243, 0.0398094026278 } },
  { "CrossEntropyLoss", { label_smoothing = 0.1, reduction = "none" }, "class",
    { 0.630772982398, 0.358675793114 },
    { 0.319848239945, 0.0311871211037, -0.351035361049,
      -0.127068053871, 0.087258651243, 0.0398094026278 } },
  { "NLLLoss", { reduction = "mean" }, "class",
    { -1.35 },
    { 0, 0, -0.5, -0.5, 0, 0 } },
  { "NLLLoss", { reduction = "sum" }, "class",
    { -2.7 },
    { 0, 0, -1, -1, 0, 0 } },
  { "NLLLoss", { reduction = "none" }, "class",
    { -0.7, -2 },
    { 0, 0, -1, -1, 0, 0 } },
  { "KLDivLoss", { reduction = "mean" }, "distribution",
    { -0.209498026447 },
    { -0.0333333333333, -0.05, -0.0833333333333, -0, -0.0416666666667, -0.125 } },
  { "KLDivLoss", { reduction = "sum" }, "distribution",
    { -1.25698815868 },
    { -0.2, -0.3, -0.5, -0, -0.25, -0.75 } },
  { "KLDivLoss", { reduction = "none" }, "distribution",
    { -0.361887582487, 0.0888081587022, -0.69657359028, 0, -0.37157359028, 0.0842384456612 },
    { -0.2, -0.3, -0.5, -0, -0.25, -0.75 } },
  { "KLDivLoss", { reduction = "batchmean" }, "distribution",
    { -0.628494079342 },
    { -0.1, -0.15, -0.25, -0, -0.125, -0.375 } },
  { "KLDivLoss", { log_target = true, reduction = "mean" }, "plain",
    { 0.399182261639 },
    { -0.27478687845, -0.0613132401952, -0.74694817839,
      -0.184195153013, -0.248637449607, -0.0225558805394 } },
  { "KLDivLoss", { log_target = true, reduction = "sum" }, "plain",
    { 2.39509356984 },
    { -1.6487212707, -0.367879441171, -4.48168907034,
      -1.10517091808, -1.49182469764, -0.135335283237 } },
  { "KLDivLoss", { log_target = true, reduction = "none" }, "plain",
    { 0.49461638121, 0.183939720586, 3.58535125627,
      -2.09982474434, 0.447547409292, -0.216536453179 },
    { -1.6487212707, -0.367879441171, -4.48168907034,
      -1.10517091808, -1.49182469764, -0.135335283237 } },
  { "KLDivLoss", { log_target = true, reduction = "batchmean" }, "plain",
    { 1.19754678492 },
    { -0.82436063535, -0.183939720586, -2.24084453517,
      -0.552585459038, -0.745912348821, -0.0676676416183 } },
}

describe("losses", function()
  local logits = { { 0.2, -1.5, 0.7 }, { 2.0, 0.1, -0.4 } }
  local probabilities = { { 0.2, 0.9, 0.6 }, { 0.01, 0.5, 0.75 } }
  local shares = { { 0, 1, 0.3 }, { 1, 0, 0.5 } }
  local inputs = {
    plain = { logits, { { 0.5, -1.0, 1.5 }, { 0.1, 0.4, -2.0 } } },
    probability = { probabilities, shares },
    logit = { logits, shares },
    class = { logits, { 3, 1 } }, -- PyTorch's 2 and 0
    distribution = { logits, { { 0.2, 0.3, 0.5 }, { 0.0, 0.25, 0.75 } } },
  }
  local function make(kind)
    local input = tensor(inputs[kind][1]):requires_grad_(true)
    return input, nyx.tensor(inputs[kind][2], { dtype = kind == "class" and "int64" or "float64" })
  end

  for _, case in ipairs(losses) do
    local name, options, kind, values, gradient = case[1], case[2], case[3], case[4], case[5]
    local extra = options.log_target and " log_target" or options.label_smoothing and " smoothed"
      or ""
    it(("%s %s%s follows PyTorch"):format(name, options.reduction, extra), function()
      local input, target = make(kind)
      local loss = nn[name](options)(input, target)
      close(values, loss)
      loss:sum():backward()
      close(gradient, input.grad)
    end)
  end

  it("take weights", function()
    local w = tensor { 2, 0.5, 3 }
    local input, target = make("logit")
    close({ 0.901371062258 }, nn.BCEWithLogitsLoss({ pos_weight = w })(input, target))
    input, target = make("class")
    close({ 0.410600773351 }, nn.CrossEntropyLoss({ weight = w })(input, target))
    assert.are.equal(1, #nn.CrossEntropyLoss({ weight = w }):buffers())
  end)

  it("stay finite far out", function()
    local input = tensor { 1000, -1000, 1000, -1000 }:requires_grad_(true)
    local loss = nn.BCEWithLogitsLoss({ reduction = "none" })(input, tensor { 1, 0, 0, 1 })
    close({ 0, 0, 1000, 1000 }, loss)
    loss:sum():backward()
    close({ 0, 0, 1, -1 }, input.grad)
    close({ 0, 100 }, nn.BCELoss({ reduction = "none" })(tensor { 1, 0 }, tensor { 1, 1 }))
  end)

  it("say what does not fit", function()
    assert.matches("nn.MSELoss: the input has shape %(2x3%), the target %(3%)", message_of(
      nn.MSELoss(), nyx.ones({ 2, 3 }), nyx.ones({ 3 })))
    assert.matches("'reduction' is string 'avg', expected one of: mean sum none",
      message_of(nn.MSELoss, { reduction = "avg" }))
    assert.matches("unknown option 'delta'", message_of(nn.MSELoss, { delta = 1 }))
    assert.has_error(function()
      nn.CrossEntropyLoss()(nyx.ones({ 2, 3 }), nyx.tensor({ 0, 1 }, { dtype = "int64" }))
    end)
  end)
end)
