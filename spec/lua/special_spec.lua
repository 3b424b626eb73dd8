-- Gamma, zeta and Bessel functions where they have poles and limits, gradients of high order, and
-- functions made of them. Their values: spec/c/special_test.c, spec/peers.
package.path = debug.getinfo(1, "S").source:match "^@(.*/)" .. "?.lua;" .. package.path
local nyx = require "nyx"
local checks = require "checks"

local message_of = checks.message_of
local nan, inf = 0 / 0, math.huge

local function t(values, dtype) return nyx.tensor(values, { dtype = dtype or "float64" }) end

-- Like assert.are.same, where nan is nan and the signs of zeros count.
local function same(want, got)
  got = got:totable()
  assert.equal(#want, #got)
  for i = 1, #want do
    local a, b = want[i], got[i]
    local ok = a == b and 1 / a == 1 / b or a ~= a and b ~= b
    assert.is_true(ok, ("element %d is %s, expected %s"):format(i, b, a))
  end
end

local function near(want, got)
  assert.is_true(math.abs(got - want) <= 1e-12 * math.abs(want), ("%.17g, expected %.17g")
    :format(got, want))
end

-- The derivative of order n at a point.
local function derivative(fn, at, n)
  local x = t(at):requires_grad_()
  local y = fn(x)
  for _ = 1, n do y = nyx.grad(y:sum(), { x }, { create_graph = true })[1] end
  return y:item()
end

describe("special functions", function()
  it("have poles and limits", function()
    for _, dtype in ipairs { "float64", "float32" } do
      same({ inf, inf, inf, inf, 0, 0, inf, inf, nan },
        t({ 0, -0.0, -1, -20, 1, 2, inf, -inf, nan }, dtype):lgamma())
      same({ -inf, inf, nan, nan, inf, nan, nan },
        t({ 0, -0.0, -1, -20, inf, -inf, nan }, dtype):digamma())
      same({ 0, -0.0, inf, -inf, nan, nan, nan },
        t({ 0, -0.0, 1, -1, 1.5, -2, nan }, dtype):erfinv())
      same({ 1, 1, inf, inf, nan }, t({ 0, -0.0, inf, -inf, nan }, dtype):i0())
      same({ 1, 1, 0, 0, nan }, t({ 0, -0.0, inf, -inf, nan }, dtype):i0e())
      same({ 0, -0.0, inf, -inf, nan }, t({ 0, -0.0, inf, -inf, nan }, dtype):i1())
      same({ 0, -0.0, 0, -0.0, nan }, t({ 0, -0.0, inf, -inf, nan }, dtype):i1e())
      same({ inf, nan, inf, inf, nan, 0, nan, nan },
        nyx.zeta(t({ 1, 0.5, 2, 2, 2.5, 2, nan, 2 }, dtype),
          t({ 3, 3, 0, -4, -0.5, inf, 1, nan }, dtype)))
    end
  end)

  it("find neighbours of their dtype", function()
    same({ 1 + 2 ^ -52, 1 - 2 ^ -53, 2 ^ -1074, -2 ^ -1074, 2, nan },
      t({ 1, 1, 0, -0.0, 2, 1 }):nextafter(t { 2, 0, 1, -1, 2, nan }))
    same({ 1 + 2 ^ -23, 1 - 2 ^ -24, 2 ^ -149 },
      t({ 1, 1, 0 }, "float32"):nextafter(t({ 2, 0, 1 }, "float32")))
    assert.matches("nextafter: not defined for float16", message_of(function()
      return t({ 1 }, "float16"):nextafter(t({ 2 }, "float16"))
    end))
  end)

  it("have derivatives of any order", function()
    -- zeta(n) and n! of psi's derivatives at 1; lgamma'(1) is -gamma
    near(-0.57721566490153286061, derivative(nyx.lgamma, 1, 1))
    near(math.pi ^ 2 / 6, derivative(nyx.lgamma, 1, 2))
    near(-2 * 1.2020569031595942854, derivative(nyx.digamma, 1, 2))
    near(-24 * 1.0369277551433699263, derivative(nyx.digamma, 1, 4))
    near(6 * 1.0823232337111381915, derivative(function(x) return nyx.zeta(2, x) end, 1, 2))
    -- (i0 + i2) / 2, and one more
    near(0.5 * (1.2660658777520083356 + 0.13574766976703828118), derivative(nyx.i0, 1, 2))
    near(1.2660658777520083356 - 0.56515910399248502721, derivative(nyx.i1, 1, 1))
    near(math.sqrt(math.pi) / 2, derivative(nyx.erfinv, 0, 1))
    near(math.pi ^ 1.5 / 4, derivative(nyx.erfinv, 0, 3))
    assert.equal(0.5, derivative(nyx.i1, 0, 1))
    assert.equal(0.5, derivative(nyx.i1e, 0, 1))
  end)

  it("take zeta's power for a constant", function()
    local s, q = t({ 2, 3 }):requires_grad_(), t({ 1, 1.5 }):requires_grad_()
    local g = nyx.grad(nyx.zeta(s, q):sum(), { s, q }, { create_graph = true })
    assert.is_nil(g[1])
    local h = nyx.grad(g[2]:sum(), { s, q })
    assert.is_nil(h[1])
    near(6 * 1.0823232337111381915, h[2][1]:item())
  end)

  it("polygamma", function()
    local x = t { 1, 2.5 }
    assert.is_true(x:polygamma(0):equal(x:digamma()))
    near(math.pi ^ 2 / 6, nyx.polygamma(1, x)[1]:item())
    near(-2 * 1.2020569031595942854, x:polygamma(2)[1]:item())
    assert.is_true(nyx.polygamma(3, x):equal(x:polygamma(3)))
    assert.matches("polygamma: 'n' is number %-1, expected an integer of at least 0",
      message_of(function() return nyx.polygamma(-1, x) end))
    assert.matches("polygamma: 'x' is number 2",
      message_of(function() return nyx.polygamma(1, 2) end))
  end)

  it("mvlgamma", function()
    assert.is_true(t({ 3.5 }):mvlgamma(1):equal(t({ 3.5 }):lgamma()))
    near(math.log(math.pi) * 0.5 + t(3):lgamma():item() + t(2.5):lgamma():item(),
      t(3):mvlgamma(2):item())
    assert.matches("mvlgamma: 'p' is number 0", message_of(function() return t(3):mvlgamma(0) end))
  end)

  it("ldexp and frexp", function()
    same({ 12, 0.75, -0.25 }, t({ 3, 3, -1 }):ldexp(nyx.tensor({ 2, -2, -2 }, { dtype = "int64" })))
    same({ 2 ^ 300 }, t({ 1 }):ldexp(300))
    same({ 6 }, nyx.tensor({ 3 }, { dtype = "int32" }):ldexp(1))
    for _, dtype in ipairs { "float64", "float32", "float16" } do
      local m, n = t({ 1, -6, 0, -0.0, inf, nan, 0.75, 2 ^ -14 }, dtype):frexp()
      same({ 0.5, -0.75, 0, -0.0, inf, nan, 0.75, 0.5 }, m)
      assert.are.same({ 1, 3, 0, 0, 0, 0, 0, -13 }, n:totable())
      assert.equal("int32", n.dtype)
    end
    local m, n = t({ 2 ^ -1074, 1.7976931348623157e308, 2 ^ -1022 }):frexp()
    same({ 0.5, 1 - 2 ^ -53, 0.5 }, m)
    assert.are.same({ -1073, 1024, -1021 }, n:totable())
    m, n = t({ 2 ^ -149, 2 ^ 127 * (2 - 2 ^ -23), 3 * 2 ^ -149 }, "float32"):frexp()
    same({ 0.5, 1 - 2 ^ -24, 0.75 }, m)
    assert.are.same({ -148, 128, -147 }, n:totable())
    assert.equal(0.25, derivative(function(x) return (x:frexp()) end, 2.5, 1))
    assert.matches("frexp: 'x' has dtype int32, expected floats",
      message_of(function() return nyx.tensor({ 1 }, { dtype = "int32" }):frexp() end))
  end)
end)
