-- nyx.grad_flow: the numbers, and the plot in terminals of any width and in files.
local nyx = require "nyx"
local nn = nyx.nn

local function close(expected, got)
  assert.is_true(math.abs(expected - got) <= 1e-6 * math.abs(expected),
    ("expected %.9g, got %.9g"):format(expected, got))
end

local function f64(values) return nyx.tensor(values, { dtype = "float64" }) end

-- A parameter with a gradient, or none.
local function with(values, grad)
  local t = f64(values)
  t.requires_grad = true
  if grad then t.grad = f64(grad) end
  return t
end

local function lines_of(flow)
  local lines = {}
  for line in (tostring(flow) .. "\n"):gmatch "(.-)\n" do lines[#lines + 1] = line end
  return lines
end

local function width_of(line)
  local plain = line:gsub("\27%[%d*m", "")
  local _, continuing = plain:gsub("[\128-\191]", "")
  return #plain - continuing
end

describe("grad_flow", function()
  local parameters = {
    a = with({ 3, 4 }, { 0.3, -0.4 }),
    b = with({ 1 }, { 1e-4 }),
    c = with({ 1, 2 }, { 0, 0 }),
    d = with({ 1 }),
    e = with({ 1, 2 }, { 0 / 0, 1 }),
    f = with({ 1, 2 }, { 1, math.huge }),
    g = f64 { 1 },
  }

  it("gives norms, maxima and ratios", function()
    local flow = nyx.grad_flow { a = parameters.a, b = parameters.b, g = parameters.g }
    assert.equal(2, #flow) -- g requires none
    assert.equal("a", flow[1].name)
    assert.equal("ok", flow[1].state)
    close(0.5, flow[1].norm)
    close(0.4, flow[1].max)
    close(5, flow[1].weight)
    close(0.1, flow[1].ratio)
    assert.equal(2, flow[1].count)
    close(math.sqrt(0.25 + 1e-8), flow.norm)
  end)

  it("marks what is wrong", function()
    local states = {}
    for i, row in ipairs(nyx.grad_flow(parameters)) do states[i] = row.name .. " " .. row.state end
    assert.same({ "a ok", "b ok", "c zero", "d missing", "e nan", "f inf" }, states)
    local text = tostring(nyx.grad_flow(parameters, { terminal = false }))
    assert.matches("c%s+0.00e%+00%s+0.00e%+00%s+0.00e%+00 all zero", text)
    assert.matches("d%s+%-%s+%-%s+%- no gradient", text)
    assert.matches("NaN", text)
    assert.matches("infinite", text)
  end)

  it("neither overflows nor vanishes", function()
    local flow = nyx.grad_flow { with({ 1, 1 }, { 3e160, 4e160 }),
      with({ 1, 1 }, { 3e-160, 4e-160 }) }
    close(5e160, flow[1].norm)
    close(5e160, flow.norm)
    close(5e-160, flow[2].norm)
    assert.equal("ok", flow[1].state)
    close(4e160, flow[1].max)
  end)

  it("draws bars on a logarithmic scale", function()
    local flow = nyx.grad_flow({ with({ 1 }, { 1 }), with({ 1 }, { 1e-2 }), with({ 1 }, { 1e-4 }) },
      { terminal = false, columns = 75 })
    local lines, bars = lines_of(flow), {}
    assert.equal(5, #lines)
    for i = 1, 3 do bars[i] = #lines[i + 1]:match "#+" end
    assert.same({ 40, 20, 1 }, bars)
    assert.matches("^ +1e%-4 +1e0$", lines[5])
  end)

  it("fits the terminal and aligns names", function()
    nyx.manual_seed(3)
    local net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    net.a_module_with_a_rather_long_name = nn.Linear(2, 2)
    net(nyx.randn(3, 4)):sum():backward()
    for _, terminal in ipairs { true, false } do
      for _, columns in ipairs { 24, 40, 60, 80, 200 } do
        local lines = lines_of(nyx.grad_flow(net, { columns = columns, terminal = terminal }))
        for _, line in ipairs(lines) do
          assert.is_true(width_of(line) <= columns, ("%d: %s"):format(columns, line))
        end
        local at = lines[2]:find "%d%.%d%de"
        for i = 3, 5 do assert.equal(at, (lines[i]:find "%d%.%d%de")) end
      end
    end
    local drawn = tostring(nyx.grad_flow(net, { terminal = true, columns = 80 }))
    assert.matches("█", drawn)
    assert.matches("\27%[31mno gradient\27%[0m", drawn)
    assert.is_nil(tostring(nyx.grad_flow(net, { terminal = false })):find "[\128-\255\27]")
  end)

  it("puts the parameters of a layer together", function()
    local net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    net[1].weight.grad, net[1].bias.grad = nyx.ones(2, 2), nyx.ones(2) * 4
    local flow = nyx.grad_flow(net, { layers = true })
    assert.equal(2, #flow)
    assert.equal("1", flow[1].name)
    close(6, flow[1].norm)
    close(4, flow[1].max)
    assert.equal(6, flow[1].count)
    assert.equal("missing", flow[2].state)
  end)

  it("works for half types and empty models", function()
    local half = nyx.ones(2, { dtype = "float16" })
    half.requires_grad = true
    half.grad = nyx.ones(2, { dtype = "float16" }) * 60000
    close(60000 * math.sqrt(2), nyx.grad_flow({ half })[1].norm)
    assert.equal("no parameter requires a gradient", tostring(nyx.grad_flow(nn.ReLU())))
    local none = tostring(nyx.grad_flow { with { 1 } })
    assert.matches("no gradient", none)
  end)

  it("checks its arguments", function()
    local function fails(pattern, ...)
      local ok, message = pcall(nyx.grad_flow, ...)
      assert.is_false(ok)
      assert.matches(pattern, message)
    end
    fails("'model' is number 3", 3)
    fails("'a' is number 1", { a = 1 })
    fails("'true' is number 1", { [true] = 1, [false] = with { 1 } })
    fails("unknown option", nn.ReLU(), { layer = true })
    fails("'columns' is string 'wide'", nn.ReLU(), { columns = "wide" })
  end)
end)
