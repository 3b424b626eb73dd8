-- conv2d_activation beyond what spec/op and spec/peers call it with: every way that a convolution
-- is computed, in both layouts and all dtypes; nn.Conv2d's activation, nn.utils.fuse.
local nyx = require "nyx"
local nn = nyx.nn
local unpack = table.unpack or unpack

local function differ(a, b)
  local most = (a:detach():double() - b:detach():double()):abs():max():item()
  return most == most and most or math.huge
end

-- The same tensors as one another, also where they are not finite.
local function same(a, b)
  return nyx.where(a:eq(b):logical_or(a:ne(a):logical_and(b:ne(b))), 0, 1):sum():item() == 0
end

-- x, weight, options: what each is there for. Ways are chosen by sizes: core/op/conv_ways.c.
local ways = {
  { "1x1 of an image", { 1, 32, 14, 14 }, { 64, 32, 1, 1 } },
  { "1x1 of an image, groups", { 1, 32, 9, 9 }, { 64, 16, 1, 1 }, { groups = 2 } },
  { "1x1 of some places", { 1, 32, 15, 15 }, { 24, 32, 1, 1 }, { stride = 2 } },
  { "1x1, tiles of several images", { 3, 48, 12, 12 }, { 24, 48, 1, 1 } },
  { "1x1, tiles of a part of an image", { 2, 64, 50, 50 }, { 16, 64, 1, 1 } },
  { "1x1, small planes", { 5, 16, 7, 7 }, { 40, 16, 1, 1 } },
  { "few channels", { 3, 3, 9, 9 }, { 5, 3, 3, 3 }, { padding = 1 } },
  { "patches of an image", { 1, 16, 30, 30 }, { 32, 16, 5, 5 }, { padding = 2 } },
  { "patches of several images", { 5, 16, 15, 15 }, { 40, 16, 3, 3 }, { stride = 2, padding = 1 } },
  { "patches of whole images", { 2, 16, 33, 32 }, { 16, 16, 3, 2 }, { stride = 2, dilation = 2 } },
  { "patches, groups", { 3, 32, 12, 12 }, { 32, 16, 3, 3 }, { groups = 2, stride = 2 } },
  { "few places", { 1, 96, 4, 4 }, { 160, 96, 3, 3 }, { padding = 1, stride = 2 } },
  { "divided outputs", { 1, 80, 17, 18 }, { 300, 80, 3, 3 }, { padding = 1, stride = 2 } },
  { "winograd", { 2, 32, 29, 27 }, { 40, 32, 3, 3 }, { padding = 1 } },
  { "winograd, few tiles", { 1, 128, 14, 14 }, { 128, 128, 3, 3 }, { padding = 1 } },
  { "winograd, many blocks", { 3, 64, 56, 56 }, { 64, 64, 3, 3 }, { padding = 1 } },
  { "winograd, groups", { 2, 64, 20, 20 }, { 64, 32, 3, 3 }, { padding = 1, groups = 2 } },
  { "winograd, stride 2", { 3, 64, 40, 38 }, { 48, 64, 3, 3 }, { padding = 1, stride = 2 } },
  { "depthwise", { 2, 8, 14, 14 }, { 8, 1, 3, 3 }, { padding = 1, groups = 8 } },
  { "depthwise, two outputs", { 2, 6, 9, 8 }, { 12, 1, 3, 3 }, { stride = 2, groups = 6 } },
  { "fourier", { 2, 4, 44, 40 }, { 6, 4, 11, 11 }, { padding = 5 } },
  { "fourier, tiles", { 1, 2, 150, 150 }, { 4, 2, 11, 11 }, { padding = 5 } },
  { "fourier, depthwise", { 2, 6, 40, 40 }, { 6, 1, 21, 21 }, { padding = 10, groups = 6 } },
  { "one image without batch", { 16, 12, 12 }, { 16, 16, 3, 3 }, { padding = 1 } },
}

-- Calls fn(name, x, weight, bias, residual, options) for each of them in both layouts.
local function each(dtype, fn)
  for _, way in ipairs(ways) do
    local name, x_shape, w_shape, options = unpack(way)
    for _, format in ipairs { "contiguous", "channels_last" } do
      if format == "contiguous" or #x_shape == 4 then
        nyx.manual_seed(3)
        local x = nyx.randn(x_shape):to(dtype)
        local w = (nyx.randn(w_shape) * 0.1):to(dtype)
        if #x_shape == 4 then x = x:contiguous(format) end
        local b = nyx.randn(w_shape[1]):to(dtype)
        local r = nyx.randn(x:conv2d(w, b, options).shape):to(dtype)
        fn(("%s, %s, %s"):format(name, format, dtype), x, w, b, r, options or { groups = 1 })
      end
    end
  end
end

local function with(options, more)
  local all = {}
  for _, t in ipairs { options, more } do for k, v in pairs(t) do all[k] = v end end
  return all
end

describe("conv2d_activation", function()
  it("is the ops one after the other, to the last bit, whatever the threads", function()
    local threads = nyx.get_num_threads()
    for _, dtype in ipairs { "float32", "float64" } do
      each(dtype, function(name, x, w, b, r, options)
        local plain = x:conv2d(w, b, options)
        for _, n in ipairs { 1, 3 } do
          nyx.set_num_threads(n)
          local y, sums = x:conv2d_activation(w, b, r, with(options, { activation = "silu" }))
          assert(same(sums, plain + r), name .. ", sums")
          assert(same(y, (plain + r):silu()), name)
          assert.equal(plain:is_contiguous("channels_last"), y:is_contiguous("channels_last"), name)
          y = x:conv2d_activation(w, b, nil, with(options, { activation = "relu", keep = false }))
          assert(same(y, plain:relu()), name .. ", relu")
          local turned = r:transpose(-1, -2):contiguous():transpose(-1, -2)
          y = x:conv2d_activation(w, nil, turned, options)
          assert(same(y, x:conv2d(w, nil, options) + r), name .. ", residual")
        end
      end)
    end
    nyx.set_num_threads(threads)
  end)

  it("rounds half types at the end alone", function()
    for dtype, bound in pairs { float16 = 4e-3, bfloat16 = 3e-2 } do
      each(dtype, function(name, x, w, b, r, options)
        local want = x:double():conv2d(w:double(), b:double(), options) + r:double()
        local y, sums = x:conv2d_activation(w, b, r, with(options, { activation = "silu" }))
        local scale = want:abs():max():item()
        assert.equal(dtype, y.dtype)
        assert(differ(y, want:silu()) < bound * scale, name)
        assert(differ(sums, want) < bound * scale, name .. ", sums")
      end)
    end
  end)

  it("takes packed weights, and images that are not finite", function()
    each("float32", function(name, x, w, b, r, options)
      local all = with(options, { activation = "leaky_relu", keep = false })
      local want = (x:conv2d(w, b, options) + r):leaky_relu()
      w:keep_packed(true)
      for _ = 1, 2 do
        local got = x:conv2d_activation(w, b, r, all)
        assert(differ(got, want) < 1e-4, name)
      end
      w:keep_packed(false)
      x:select(1, 1):fill_(math.huge)
      local broken = x:conv2d_activation(w, b, r, all)
      assert(same(broken, (x:conv2d(w, b, options) + r):leaky_relu()), name .. ", infinite")
    end)
  end)

  it("is what it is where ways are measured", function()
    local file, before = os.tmpname(), nyx.tune()
    os.remove(file)
    assert(nyx.tune(true, { file = file }))
    nyx.manual_seed(6)
    for _, format in ipairs { "contiguous", "channels_last" } do
      local x, w = nyx.randn(2, 32, 14, 14):contiguous(format), nyx.randn(32, 32, 3, 3) * 0.1
      local r, options = nyx.randn(2, 32, 14, 14), { padding = 1 }
      local y, sums = x:conv2d_activation(w, nil, r, with(options, { activation = "relu" }))
      local want = x:conv2d(w, nil, options) + r
      assert(same(sums, want) and same(y, want:relu()), format)
    end
    local known = nyx.tune().known
    assert(nyx.tune(before.mode, { file = "" }))
    os.remove(file)
    assert(known > 0)
  end)

  it("has the gradients of the ops, of whatever is asked for", function()
    each("float64", function(name, x, w, b, r, options)
      if x:numel() > 12000 then return end
      local leaves = { x, w, b, r }
      for _, leaf in ipairs(leaves) do leaf:requires_grad_() end
      local want = (x:conv2d(w, b, options) + r):silu()
      local g, slopes = nyx.randn(want.shape, { dtype = "float64" }), {}
      want:backward(g)
      for i, leaf in ipairs(leaves) do slopes[i], leaf.grad = leaf.grad, nil end
      for set = 1, 15 do
        for i, leaf in ipairs(leaves) do
          leaf.grad = nil
          leaf:requires_grad_(math.floor(set / 2 ^ (i - 1)) % 2 == 1)
        end
        local all = with(options, { activation = "silu", keep = set % 2 == 0 })
        local y = x:conv2d_activation(w, b, r, all)
        y:backward(g)
        for i, leaf in ipairs(leaves) do
          assert.equal(leaf.requires_grad, leaf.grad ~= nil)
          assert(not leaf.grad or differ(leaf.grad, slopes[i]) < 1e-10, name .. i)
        end
      end
    end)
  end)

  it("maps over a batch, whichever inputs have one, and has directional derivatives", function()
    local f64 = { dtype = "float64" }
    for _, sizes in ipairs { { { 2, 3, 5, 4 }, { 4, 3, 3, 3 }, { 4 }, { 2, 4, 5, 4 } },
      { { 3, 5, 4 }, { 4, 3, 3, 3 }, { 4 }, { 4, 5, 4 } } } do
      local options = { padding = 1, activation = "silu", keep = false }
      local function fused(x, w, b, r) return (x:conv2d_activation(w, b, r, options)) end
      for set = 1, 15 do
        local in_dims, values = {}, {}
        for i, size in ipairs(sizes) do
          in_dims[i] = math.floor(set / 2 ^ (i - 1)) % 2 == 1 and 1 or false
          values[i] = nyx.randn(in_dims[i] and { 2, unpack(size) } or size, f64)
        end
        local got = nyx.func.vmap(fused, { in_dims = in_dims })(unpack(values))
        for e = 1, 2 do
          local own = {}
          for i, v in ipairs(values) do own[i] = in_dims[i] and v[e] or v end
          assert(differ(got[e], fused(unpack(own))) < 1e-14, set)
        end
      end
      local at, along = {}, {}
      for i, size in ipairs(sizes) do
        at[i], along[i] = nyx.randn(size, f64), nyx.randn(size, f64)
      end
      local function composed(x, w, b, r) return (x:conv2d(w, b, { padding = 1 }) + r):silu() end
      local _, got = nyx.func.jvp(fused, at, along)
      local _, want = nyx.func.jvp(composed, at, along)
      assert(differ(got, want) < 1e-12)
    end
  end)

  it("refuses what does not fit", function()
    local x, w = nyx.zeros(1, 2, 5, 5), nyx.zeros(3, 2, 3, 3)
    local function message(...) return select(2, pcall(nyx.conv2d_activation, x, w, nil, ...)) end
    assert.matches("\"swiglu\".*op of one float input", message(nil, { activation = "swiglu" }))
    assert.matches("\"none\".*relu, gelu", message(nil, { activation = "none" }))
    assert.matches("'residual' has shape %(1x3x5x5%)", message(nyx.zeros(1, 3, 5, 5)))
  end)
end)

describe("nn.Conv2d with an activation", function()
  it("is the layers one after the other, is trained, printed and saved", function()
    local x, r = nyx.randn(2, 3, 8, 8), nyx.randn(2, 6, 8, 8)
    local layer = nn.Conv2d(3, 6, 3, { padding = 1, activation = "relu" })
    local plain = x:conv2d(layer.weight, layer.bias, { padding = 1 })
    assert(same(layer(x), plain:relu()))
    assert(same(nyx.no_grad(layer.forward, layer, x, r), (plain + r):relu()))
    layer(x, r):sum():backward()
    assert.is_not_nil(layer.weight.grad)
    assert.matches("activation=relu", tostring(layer))
    local _, message = pcall(nn.Conv2d, 3, 6, 3, { activation = 3 })
    assert.matches("'activation' is number 3", message)
    local path = os.tmpname()
    nyx.save(path, layer)
    assert.equal(0, differ(layer(x), nyx.load(path)(x)))
    os.remove(path)
  end)
end)

-- A model with statistics that are not the first ones.
local function settled(model, ...)
  for _ = 1, 2 do model(...) end
  for _, p in ipairs(model:parameters()) do
    if p.ndim == 1 then nyx.no_grad(function() p:add_(nyx.randn(p.shape) * 0.3) end) end
  end
  return model:eval()
end

local function names_of(model)
  local names = {}
  for i = 1, #model do names[i] = model[i]:class_name() end
  return table.concat(names, " ")
end

local Block = nyx.class("FuseBlock", nn.Module)

function Block:init(features)
  self.conv1 = nn.Conv2d(features, features, 3, { padding = 1, bias = false })
  self.norm1 = nn.BatchNorm2d(features)
  self.conv2 = nn.Conv2d(features, features, 1)
  self.norm2 = nn.BatchNorm2d(features, { affine = false })
  self.act2 = nn.Hardswish()
end

function Block:forward(x)
  return x + self.act2(self.norm2(self.conv2(self.norm1(self.conv1(x)):relu())))
end

describe("nn.utils.fuse", function()
  local fuse = nn.utils.fuse

  it("keeps the numbers, in sequences, nested ones and by names", function()
    for _, format in ipairs { "contiguous", "channels_last" } do
      local x = (nyx.randn(4, 3, 12, 12) * 2 + 1):contiguous(format)
      local model = nn.Sequential(nn.Conv2d(3, 16, 3, { stride = 2, bias = false }),
        nn.BatchNorm2d(16), nn.ReLU(), Block(16), nn.Sequential(nn.Conv2d(16, 16, 1),
        nn.GELU("tanh")), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24),
        nn.LeakyReLU(0.2), nn.Linear(24, 5), nn.Tanh(), nn.Tanh())
      settled(model, x):to { memory_format = format }
      local want = model(x):detach()
      assert.equal(model, fuse(model, { { "conv1", "norm1" }, { "conv2", "norm2", "act2" } }))
      assert(differ(model(x), want) < 1e-5 * want:abs():max():item())
      assert.equal("Conv2d Identity Identity FuseBlock Sequential MaxPool2d Flatten Linear "
        .. "Identity LeakyReLU Linear Identity Tanh", names_of(model))
      assert.equal("relu", model[1].activation)
      assert.equal("hardswish", model[4].conv2.activation)
      assert.is_nil(model[4].conv1.activation)
      assert.equal("gelu_tanh", model[5][1].activation)
      assert.is_nil(model[8].activation)
      assert.equal("tanh", model[11].activation)
      assert.equal(format == "channels_last", not model[1].weight:is_contiguous())
      assert(model[1].bias.requires_grad)
      fuse(model) -- nothing is left to do
      assert(differ(model(x), want) < 1e-5 * want:abs():max():item())
    end
  end)

  it("leaves what it may not change", function()
    local conv, x = nn.Conv2d(3, 3, 3, { padding = 1 }), nyx.randn(2, 3, 6, 6)
    local seen, hooked = 0, nn.ReLU()
    hooked:register_forward_hook(function() seen = seen + 1 end)
    local bare = nn.BatchNorm2d(3, { track_running_stats = false })
    local model = nn.Sequential(conv, nn.BatchNorm2d(3), conv, nn.ReLU(), nn.Conv2d(3, 4, 1),
      hooked, nn.Conv2d(4, 3, 1), bare, nn.Conv2d(3, 4, 1), nn.Softmax())
    settled(model, x)
    local want, before = model(x):detach(), names_of(model)
    fuse(model)
    seen = 0
    assert.equal(before, names_of(model))
    assert.equal(0, differ(model(x), want))
    assert.equal(1, seen)
    local rows = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(5)):eval() -- of (batch, 5, 6)
    x = nyx.randn(2, 5, 4)
    want = rows(x)
    assert.equal(0, differ(fuse(rows)(x), want))
    local twice = nn.Sequential(nn.Linear(4, 6, { activation = "relu" }), nn.BatchNorm1d(6),
      nn.Tanh()):eval()
    want = twice(x:reshape(10, 4))
    assert.equal(0, differ(fuse(twice)(x:reshape(10, 4)), want))
  end)

  it("keeps what is frozen so, and half types", function()
    local model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)):to("bfloat16"):eval()
    model[1]:requires_grad_(false)
    fuse(model)
    assert.equal("bfloat16", model[1].weight.dtype)
    assert.is_false(model[1].weight.requires_grad or model[1].bias.requires_grad)
    local names = {}
    for name in model:named_parameters() do names[#names + 1] = name end
    assert.same({ "1.weight", "1.bias" }, names)
  end)

  it("refuses what does not fit", function()
    local function message(...) return select(2, pcall(fuse, ...)) end
    local model = nn.Sequential(Block(4))
    assert.matches("Sequential is in training mode.*model:eval%(%)", message(model))
    model:eval()
    assert.matches("'model' is number 3", message(3))
    assert.matches("no module has the fields names%[1%], 'conv1', 'norm9'",
      message(model, { { "conv1", "norm9" } }))
    assert.matches("'conv2' of FuseBlock cannot be taken into 'conv1'",
      message(model, { { "conv1", "conv2" } }))
  end)
end)
