-- Whole models: training steps of small nets, an LSTM and a GPT, inference of ResNet-50.
local nyx = require "nyx"
local bench = require "nyx.bench.case"

local nn, optim = nyx.nn, nyx.optim
local case, values, integers, fill = bench.case, bench.values, bench.integers, bench.fill

local function perceptron(name, batch, ...)
  local sizes = { ... }
  case(name, { checks = 3 }, function()
    local net = nn.Sequential()
    for i = 1, #sizes - 1 do
      net:append(nn.Linear(sizes[i], sizes[i + 1]))
      if i < #sizes - 1 then net:append(nn.ReLU()) end
    end
    fill(net)
    local adam = optim.Adam(net:parameters(), { lr = 1e-3 })
    return bench.training(net, adam, values(1, { batch, sizes[1] }),
      integers(2, 1, 11, { batch }))
  end)
end
perceptron("digits_mlp_step", 64, 64, 64, 10)
perceptron("mnist_mlp_step", 128, 784, 256, 128, 10)

case("mnist_conv_step", { checks = 3 }, function()
  local net = fill(nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(),
    nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10)))
  local adam = optim.Adam(net:parameters(), { lr = 1e-3 })
  return bench.training(net, adam, values(1, { 128, 1, 28, 28 }), integers(2, 1, 11, { 128 }))
end)

case("mlp_784_512_512_10_backward", {}, function()
  local net = fill(nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
    nn.Linear(512, 10)))
  local x, labels = values(1, { 128, 784 }), integers(2, 1, 11, { 128 })
  return function()
    net:zero_grad()
    local loss = net(x):cross_entropy(labels)
    loss:backward()
    return loss, net[1].weight.grad
  end
end)

-- ---------------------------------------------------------------- gated layers

local function swiglu(name, options, backward)
  options.tol = 2e-5
  case(name, options, function()
    local net, x = fill(nn.SwiGLU(1024, 2752, { bias = false })), values(1, { 256, 1024 })
    local g = values(2, { 256, 1024 })
    if not backward then return function() return nyx.no_grad(net.forward, net, x) end end
    x:requires_grad_()
    return function()
      net:zero_grad()
      x.grad = nil
      local y = net(x)
      y:backward(g)
      return y, x.grad, net.in_proj.weight.grad
    end
  end)
end
swiglu("swiglu_mlp", { limit = { "fma32", 2 * 3 * 256 * 1024 * 2752 } }, false)
swiglu("swiglu_mlp_backward", { limit = { "fma32", 3 * 2 * 3 * 256 * 1024 * 2752 } }, true)

-- ---------------------------------------------------------------- LSTM

case("lstm_128_256", { tol = 2e-5 }, function()
  local hidden, length, batch = 256, 64, 32
  local net = nn.LSTM(128, hidden)
  nyx.no_grad(function()
    net.weight_ih_l0:copy_(values(1, { 4 * hidden, 128 }) * 128 ^ -0.5)
    net.weight_hh_l0:copy_(values(2, { 4 * hidden, hidden }) * hidden ^ -0.5)
    net.bias_ih_l0:copy_(values(3, { 4 * hidden }) * 0.1)
    net.bias_hh_l0:copy_(values(4, { 4 * hidden }) * 0.1)
  end)
  local x = values(5, { length, batch, 128 }):requires_grad_(true)
  local g = values(6, { length, batch, hidden })
  return function()
    net:zero_grad()
    x.grad = nil
    local y = net(x)
    y:backward(g)
    return y, net.weight_ih_l0.grad, net.weight_hh_l0.grad, net.bias_ih_l0.grad, x.grad
  end
end)

-- A forward pass over 32 sequences of 2 to 64 steps, and one with projected states.
case("lstm_packed", { tol = 2e-5 }, function()
  local net, lengths = fill(nn.LSTM(128, 256, { bias = false })), {}
  local x = values(1, { 64, 32, 128 })
  for i = 1, 32 do lengths[i] = 66 - 2 * i end
  local packed = nn.utils.rnn.pack_padded_sequence(x, lengths)
  return function() return nyx.no_grad(net.forward, net, packed).data end
end)

case("lstm_packed_backward", { tol = 2e-5 }, function()
  local net, lengths = fill(nn.LSTM(128, 256, { bias = false })), {}
  for i = 1, 32 do lengths[i] = 66 - 2 * i end
  local x = values(1, { 64, 32, 128 }):requires_grad_(true)
  local g = values(2, { 1056, 256 })
  return function()
    net:zero_grad()
    x.grad = nil
    local y = net(nn.utils.rnn.pack_padded_sequence(x, lengths)).data
    y:backward(g)
    return y, net.weight_ih_l0.grad, net.weight_hh_l0.grad, x.grad
  end
end)

case("lstm_projected", { tol = 2e-5 }, function()
  local net = fill(nn.LSTM(128, 512, { proj_size = 128, bias = false }))
  local x = values(1, { 64, 32, 128 })
  return function() return (nyx.no_grad(net.forward, net, x)) end
end)

case("lstm_projected_backward", { tol = 2e-5 }, function()
  local net = fill(nn.LSTM(128, 512, { proj_size = 128, bias = false }))
  local x = values(1, { 64, 32, 128 }):requires_grad_(true)
  local g = values(2, { 64, 32, 128 })
  return function()
    net:zero_grad()
    x.grad = nil
    local y = net(x)
    y:backward(g)
    return y, net.weight_ih_l0.grad, net.weight_hh_l0.grad, net.weight_hr_l0.grad, x.grad
  end
end)

-- ---------------------------------------------------------------- GPT

local layers, width, heads, length, batch, vocabulary = 6, 384, 6, 256, 8, 65

local Block = nyx.class("Block", nn.Module)

function Block:init()
  self.norm1 = nn.LayerNorm(width)
  self.qkv = nn.Linear(width, 3 * width)
  self.out = nn.Linear(width, width)
  self.norm2 = nn.LayerNorm(width)
  self.up = nn.Linear(width, 4 * width, { activation = "gelu" })
  self.down = nn.Linear(4 * width, width)
end

function Block:forward(x)
  local qkv = self.qkv(self.norm1(x)):view(batch, length, 3, heads, width / heads)
    :permute(3, 1, 4, 2, 5)
  local q, k, v = qkv[1], qkv[2], qkv[3]
  local seen = nyx.scaled_dot_product_attention(q, k, v, { is_causal = true })
  x = self.out(seen:transpose(2, 3):reshape(batch, length, width), x)
  return self.down(self.up(self.norm2(x)), x)
end

local GPT = nyx.class("GPT", nn.Module)

function GPT:init()
  self.token = nn.Embedding(vocabulary, width)
  self.position = nn.Embedding(length, width)
  self.blocks = nn.Sequential()
  for _ = 1, layers do self.blocks:append(Block()) end
  self.norm = nn.LayerNorm(width)
  self.head = nn.Linear(width, vocabulary, { bias = false })
end

function GPT:forward(tokens)
  local x = self.token(tokens) + self.position.weight
  for i = 1, layers do x = self.blocks[i](x) end
  return self.head(self.norm(x)):view(batch * length, vocabulary)
end

case("gpt_step", { checks = 3 }, function()
  local net = fill(GPT())
  local adam = optim.AdamW(net:parameters(), { lr = 1e-4 })
  return bench.training(net, adam, integers(1, 1, vocabulary + 1, { batch, length }),
    integers(2, 1, vocabulary + 1, { batch * length }))
end)

-- ---------------------------------------------------------------- ResNet-50

local Bottleneck = nyx.class("Bottleneck", nn.Module)

function Bottleneck:init(input, planes, stride)
  local bare = { bias = false }
  self.conv1 = nn.Conv2d(input, planes, 1, bare)
  self.norm1 = nn.BatchNorm2d(planes)
  self.conv2 = nn.Conv2d(planes, planes, 3, { stride = stride, padding = 1, bias = false })
  self.norm2 = nn.BatchNorm2d(planes)
  self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bare)
  self.norm3 = nn.BatchNorm2d(4 * planes)
  if stride > 1 or input ~= 4 * planes then
    local options = { stride = stride, bias = false }
    self.shortcut = nn.Sequential(nn.Conv2d(input, 4 * planes, 1, options),
      nn.BatchNorm2d(4 * planes))
  end
end

function Bottleneck:forward(x)
  local y = self.norm1(self.conv1(x)):relu()
  y = self.norm2(self.conv2(y)):relu()
  y = self.norm3(self.conv3(y))
  return (y + (self.shortcut and self.shortcut(x) or x)):relu()
end

-- Batch norms, activations and the sum of a block in its convolutions' own passes.
local function fused(net)
  nn.utils.fuse(net, { { "conv1", "norm1" }, { "conv2", "norm2" }, { "conv3", "norm3" } })
  for _, block in ipairs(net:children()) do
    if block.conv3 then
      for i = 1, 3 do block["conv" .. i].activation = "relu" end
      function block:forward(x)
        return self.conv3(self.conv2(self.conv1(x)), self.shortcut and self.shortcut(x) or x)
      end
    end
  end
end

local function resnet50()
  local net = nn.Sequential(nn.Conv2d(3, 64, 7, { stride = 2, padding = 3, bias = false }),
    nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, { stride = 2, padding = 1 }))
  local input = 64
  for stage, blocks in ipairs { 3, 4, 6, 3 } do
    local planes = math.floor(32 * 2 ^ stage)
    for i = 1, blocks do
      net:append(Bottleneck(input, planes, (stage > 1 and i == 1) and 2 or 1))
      input = 4 * planes
    end
  end
  return net, nn.Linear(2048, 1000)
end

for _, how in ipairs {
  { "resnet50_inference", format = "contiguous" },
  { "resnet50_last_inference", format = "channels_last" },
  { "resnet50_prepacked", format = "contiguous", prepacked = true },
  { "resnet50_fused", format = "contiguous", prepacked = true, fused = true },
} do
  case(how[1], { limit = { "fma32", 2 * 4.089e9 } }, function()
    local features, classify = resnet50()
    fill(features):eval():to { memory_format = how.format }
    fill(classify)
    if how.fused then fused(features) end
    if how.prepacked then
      features:prepack()
      classify:prepack()
    end
    local x = values(1, { 1, 3, 224, 224 }):contiguous(how.format)
    local function forward()
      return classify(features(x):adaptive_avg_pool2d(1):flatten(2))
    end
    return function() return nyx.no_grad(forward) end
  end)
end
