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
