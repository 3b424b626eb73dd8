-- Nyx's side of the benchmark: reads "case repeats" from standard input, answers with the
-- seconds one repeat took. The same cases, by the same names, are in cases.py.
-- Read next: run.py.
local nyx = require "nyx"
local clock = nyx.clock

local cases = {}

function cases.add16()
  local x, y = nyx.randn(16), nyx.randn(16)
  return function(n) for _ = 1, n do local _ = x + y end end
end

function cases.add16_recording()
  local x, y = nyx.randn(16, { requires_grad = true }), nyx.randn(16)
  return function(n) for _ = 1, n do local _ = x + y end end
end

function cases.sgemm1024()
  local x, y = nyx.randn(1024, 1024), nyx.randn(1024, 1024)
  return function(n) for _ = 1, n do local _ = x:matmul(y) end end
end

function cases.add1m()
  local x, y = nyx.randn(1000000), nyx.randn(1000000)
  return function(n) for _ = 1, n do local _ = x + y end end
end

function cases.exp1m()
  local x = nyx.randn(1000000)
  return function(n) for _ = 1, n do local _ = x:exp() end end
end

function cases.gelu1m()
  local x = nyx.randn(1000000)
  return function(n) for _ = 1, n do local _ = x:gelu() end end
end

function cases.softmax()
  local x = nyx.randn(4096, 1024)
  return function(n) for _ = 1, n do local _ = x:softmax(2) end end
end

function cases.digits_step()
  local nn, optim = nyx.nn, nyx.optim
  local net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
  local adam = optim.Adam(net:parameters(), { lr = 1e-3 })
  local x = nyx.rand(64, 64)
  local labels = nyx.randint(1, 11, { 64 })
  return function(n)
    for _ = 1, n do
      adam:zero_grad()
      local loss = net(x):cross_entropy(labels)
      loss:backward()
      adam:step()
    end
  end
end

-- Ten elementwise ops and their backward pass.
local function chain(size)
  return function()
    local x = nyx.randn(size, { requires_grad = true })
    return function(n)
      for _ = 1, n do
        x.grad = nil
        local y = (((x * 2):tanh() + 1):square():sigmoid() * x):exp():log1p() - 0.5
        y:gelu():sum():backward()
      end
    end
  end
end
cases.chain1k_backward = chain(1000)
cases.chain1m_backward = chain(1000000)

function cases.mlp_backward()
  local nn = nyx.nn
  local net = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
    nn.Linear(512, 10))
  local x, labels = nyx.rand(128, 784), nyx.randint(1, 11, { 128 })
  return function(n)
    for _ = 1, n do
      net:zero_grad()
      net(x):cross_entropy(labels):backward()
    end
  end
end

-- A perceptron of two layers as a function of its parameters: of one entry, or of a batch.
local function two_layers()
  local p = { nyx.randn(64, 32) * 0.1, nyx.zeros(64), nyx.randn(10, 64) * 0.1, nyx.zeros(10) }
  local function loss(q, x, y)
    local out = x:linear(q[1], q[2]):tanh():linear(q[3], q[4])
    return (out - y):square():mean()
  end
  return p, loss, nyx.randn(64, 32), nyx.randn(64, 10)
end

function cases.per_sample_gradients()
  local p, loss, x, y = two_layers()
  local gradients = nyx.func.vmap(nyx.func.grad(loss), { in_dims = { false, 1, 1 } })
  return function(n) for _ = 1, n do gradients(p, x, y) end end
end

function cases.hvp()
  local p, loss, x, y = two_layers()
  local v = {}
  for i, w in ipairs(p) do v[i] = nyx.randn(w.shape) end
  local function of(q) return loss(q, x, y) end
  return function(n) for _ = 1, n do nyx.func.hvp(of, { p }, { v }) end end
end

io.stdout:setvbuf "line"
print("nyx " .. nyx.version .. ", " .. nyx.cpu_path() .. ", " .. nyx.blas() .. ", "
  .. nyx.get_num_threads() .. " threads")
local ready = {}
for line in io.lines() do
  local name, repeats = line:match "^(%S+) (%d+)$"
  if not name or not cases[name] then
    print "none"
  else
    ready[name] = ready[name] or cases[name]()
    ready[name](1) -- caches are warm again
    local start = clock()
    ready[name](tonumber(repeats))
    print(("%.9g"):format((clock() - start) / tonumber(repeats)))
  end
end
