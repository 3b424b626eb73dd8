-- Convolutions: the 23 shapes of ResNet-50 at batch 1 and 16, the depthwise ones of
-- MobileNetV2, and large kernels and long filters, which go by Fourier transforms; forward, and
-- backward alone (both gradients). The names with `last` are of channels-last images and weights.
local nyx = require "nyx"
local bench = require "nyx.bench.case"

local case, values = bench.case, bench.values

-- Input channels, output channels, height and width, kernel, stride.
local resnet = {
  { 3, 64, 224, 7, 2 },
  { 64, 64, 56, 1, 1 }, { 64, 64, 56, 3, 1 }, { 64, 256, 56, 1, 1 }, { 256, 64, 56, 1, 1 },
  { 256, 128, 56, 1, 1 }, { 128, 128, 56, 3, 2 }, { 128, 512, 28, 1, 1 }, { 256, 512, 56, 1, 2 },
  { 512, 128, 28, 1, 1 }, { 128, 128, 28, 3, 1 },
  { 512, 256, 28, 1, 1 }, { 256, 256, 28, 3, 2 }, { 256, 1024, 14, 1, 1 }, { 512, 1024, 28, 1, 2 },
  { 1024, 256, 14, 1, 1 }, { 256, 256, 14, 3, 1 },
  { 1024, 512, 14, 1, 1 }, { 512, 512, 14, 3, 2 }, { 512, 2048, 7, 1, 1 }, { 1024, 2048, 14, 1, 2 },
  { 2048, 512, 7, 1, 1 }, { 512, 512, 7, 3, 1 },
}
-- Channels, height and width, stride.
local mobilenet = {
  { 32, 112, 1 }, { 96, 112, 2 }, { 144, 56, 1 }, { 144, 56, 2 }, { 192, 28, 1 }, { 192, 28, 2 },
  { 384, 14, 1 }, { 576, 14, 1 }, { 576, 14, 2 }, { 960, 7, 1 },
}

-- Batch, input channels, output channels, groups, height, width, kernel's height and width.
local large = {
  { "large_k5_64", 16, 64, 64, 1, 32, 32, 5, 5 },
  { "large_k11_16", 1, 16, 16, 1, 128, 128, 11, 11 },
  { "large_k13_depthwise", 16, 128, 128, 128, 32, 32, 13, 13 },
  { "large_k31_depthwise", 1, 96, 96, 96, 56, 56, 31, 31 },
  { "large_k31_image", 1, 1, 1, 1, 512, 512, 31, 31 },
  { "large_line_256", 1, 64, 64, 1, 1, 2000, 1, 256 },
  { "large_line_512_depthwise", 4, 64, 64, 64, 1, 4000, 1, 512 },
}

-- The cases NAME_forward and NAME_backward of what `inputs` makes, images and a weight;
-- about(times, way) gives what else there is to say of one that multiplies so many times.
local function add_ways(name, inputs, options, about)
  case(name .. "_forward", about(1, "forward"), function()
    local x, w = inputs()
    return function() return x:conv2d(w, nil, options) end
  end)

  case(name .. "_backward", about(2, "backward"), function()
    local x, w = inputs()
    x:requires_grad_(true)
    w:requires_grad_(true)
    local y = x:conv2d(w, nil, options)
    local g, both = values(3, y.shape), { x, w }
    return function()
      local grads = nyx.grad(y, both, { gradient = g, retain_graph = true })
      return grads[1], grads[2]
    end
  end)
end

local function add_large(name, batch, input, output, groups, height, width, kh, kw)
  local options = { padding = { math.floor(kh / 2), math.floor(kw / 2) }, groups = groups }
  add_ways(name, function()
    return values(1, { batch, input, height, width }),
      values(2, { output, math.floor(input / groups), kh, kw })
  end, options, function() return {} end)
end

local function add(name, batch, input, output, size, kernel, stride, groups)
  local padding = math.floor(kernel / 2)
  local out = math.floor((size + 2 * padding - kernel) / stride) + 1
  local flops = 2 * batch * output * out * out * input / groups * kernel * kernel
  local options = { stride = stride, padding = padding, groups = groups }
  local peer = ("conv %d %d %d %d %d %d %d"):format(batch, input, output, size, kernel, stride,
    groups)
  local function inputs()
    return values(1, { batch, input, size, size }),
      values(2, { output, math.floor(input / groups), kernel, kernel })
  end

  add_ways(name, inputs, options, function(times, way)
    return { limit = { "fma32", times * flops }, peer = peer .. " " .. way }
  end)

  case("last_" .. name .. "_forward", { limit = { "fma32", flops } }, function()
    local x, w = inputs()
    x, w = x:contiguous("channels_last"), w:contiguous("channels_last")
    return function() return x:conv2d(w, nil, options) end
  end)
end

for _, batch in ipairs { 1, 16 } do
  for _, s in ipairs(resnet) do
    local name = ("conv_b%d_%dto%d_%d_k%d%s"):format(batch, s[1], s[2], s[3], s[4],
      s[5] > 1 and "_s" .. s[5] or "")
    add(name, batch, s[1], s[2], s[3], s[4], s[5], 1)
  end
end
for _, s in ipairs(mobilenet) do
  local name = ("depthwise_%d_%d%s"):format(s[1], s[2], s[3] > 1 and "_s" .. s[3] or "")
  add(name, 1, s[1], s[1], s[2], 3, s[3], s[1])
end
for _, s in ipairs(large) do add_large((table.unpack or unpack)(s)) end
