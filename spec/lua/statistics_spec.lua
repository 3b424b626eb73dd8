-- Statistics: lua/nyx/statistics.lua, and cumargmax and logcumsumexp, which are ops. Random
-- calls against PyTorch's are in spec/peers/composites.py.
package.path = debug.getinfo(1, "S").source:match "^@(.*/)" .. "?.lua;" .. package.path
local nyx = require "nyx"
local checks = require "checks"

local t, leaf, fails, check = checks.tensor, checks.leaf, checks.fails, checks.gradients

local nan, inf = 0 / 0, math.huge

-- Elements as text, in which nan equals nan.
local function text(x)
  local parts = {}
  for i, value in ipairs(x:reshape(-1):totable()) do
    parts[i] = value ~= value and "nan" or ("%.10g"):format(tonumber(value) or (value and 1 or 0))
  end
  return table.concat(parts, " ")
end

describe("median", function()
  local x = t { { 3, 1, 2, 4 }, { 9, 9, 0, 1 } }
  it("is the lower middle", function()
    assert.are.equal(2, x:median():item())
    local values, positions = x:median(2)
    assert.are.equal("2 1", text(values))
    assert.are.equal("3 4", text(positions))
    assert.are.same({ { 2 }, { 1 } }, (x:median(2, true)):totable())
    assert.are.equal("3 1 0 1", text((x:median(1))))
    assert.are.equal(5, t(5):median():item())
    assert.are.equal("2 1", text((t({ { 3, 1, 2, 4 }, { 9, 9, 0, 1 } }, "int32"):median(2))))
    check(function(a) return (a:median(2)) end, leaf(3, 4))
  end)
  it("is nan where there is one, nanmedian of the others", function()
    local y = t { { 3, nan, 1, 2 }, { nan, nan, nan, nan }, { 4, 2, 1, 3 } }
    local values, positions = y:median(2)
    assert.are.equal("nan nan 2", text(values))
    assert.are.equal("2 1 2", text(positions))
    values, positions = y:nanmedian(2)
    assert.are.equal("2 nan 2", text(values))
    assert.are.equal("4 1 2", text(positions))
    assert.are.equal("nan", text(y:median()))
    assert.are.equal(2, y:nanmedian():item())
  end)
  it("says what is wrong", function()
    fails(function() nyx.zeros(0):median() end, "median", "no elements")
    fails(function() nyx.zeros(2, 0):nanmedian(2) end, "nanmedian", "(2x0)", "dimension 2")
    fails(function() x:median(3) end, "median", "dimension 3")
  end)
end)

describe("quantile", function()
  local x = t { { 4, 1, 3, 2 }, { 10, 40, 20, 30 } }
  it("interpolates", function()
    assert.are.equal("2.5 25", text(x:quantile(0.5, 2)))
    assert.are.equal("1.75 17.5", text(x:quantile(0.25, -1)))
    assert.are.equal("1 10", text(x:quantile(0, 2)))
    assert.are.equal("4 40", text(x:quantile(1, 2)))
    for how, expected in pairs { lower = "1 10", higher = "2 20", midpoint = "1.5 15",
      nearest = "2 20" } do
      assert.are.equal(expected, text(x:quantile(0.25, 2, false, how)), how)
    end
    assert.are.equal(7, x:quantile(0.5):item())
    assert.are.same({ 1, 1 }, x:quantile(0.5, nil, true).shape)
    assert.are.same({ 1, 4 }, x:quantile(0.5, 1, true).shape)
  end)
  it("takes a vector of q, whose results come first", function()
    local y = x:quantile(t { 0, 0.5, 1 }, 2)
    assert.are.same({ { 1, 10 }, { 2.5, 25 }, { 4, 40 } }, y:totable())
    assert.are.same({ 3, 1, 4 }, x:quantile(t { 0, 0.5, 1 }, 1, true).shape)
    assert.are.same({ 3, 2, 1 }, x:quantile(t { 0, 0.5, 1 }, -1, true).shape)
    assert.are.same({ 3, 1, 1 }, x:quantile(t { 0, 0.5, 1 }, nil, true).shape)
  end)
  it("is nan where there is one, nanquantile of the others", function()
    local y = t { { 1, nan, 3 }, { nan, nan, nan }, { 1, 2, 3 } }
    assert.are.equal("nan nan 2", text(y:quantile(0.5, 2)))
    assert.are.equal("2 nan 2", text(y:nanquantile(0.5, 2)))
  end)
  it("passes gradients", function()
    check(function(a) return a:quantile(0.3, 2) end, leaf(3, 4))
    check(function(a) return a:nanquantile(t { 0.1, 0.7 }, 1) end, leaf(4, 2))
  end)
  it("says what is wrong", function()
    fails(function() x:quantile(1.5) end, "quantile", "'q'", "0..1")
    fails(function() x:quantile(t { 0, 2 }) end, "quantile", "'q'", "0..1")
    fails(function() x:quantile(x) end, "quantile", "'q'", "(2x4)", "vector")
    fails(function() x:long():quantile(0.5) end, "quantile", "int64", "x:float()")
    fails(function() x:quantile(0.5, 1, false, "best") end, "quantile", "interpolation", "midpoint")
  end)
end)

describe("elements by rank and number", function()
  it("kthvalue", function()
    local x = t { { 3, 1, 2, 9, 8 }, { 5, 4, 3, 2, 1 } }
    for k, expected in ipairs { "1 1", "2 2", "3 3", "8 4", "9 5" } do
      local values, positions = x:kthvalue(k)
      assert.are.equal(expected, text(values))
      assert.are.same(values:totable(), x:gather(positions:unsqueeze(2), 2):squeeze(2):totable())
    end
    assert.are.same({ 1, 5 }, (x:kthvalue(1, 1, true)).shape)
    check(function(a) return (a:kthvalue(2, 1)) end, leaf(3, 4))
    fails(function() x:kthvalue(6) end, "kthvalue", "'k' is 6", "5 elements")
    fails(function() x:kthvalue(0) end, "kthvalue", "'k'")
  end)
  it("kthvalue and median find what sort puts there, of any range and with equal ones", function()
    for _, n in ipairs { 1, 2, 48, 49, 300, 5000 } do
      local wide = nyx.randn(2, n, { dtype = "float64" }) * 1e6
      local holes = (wide * 1e-6):float()
      holes:masked_fill_(holes:gt(1), nan)
      local rows = { wide, holes, wide:float(), (wide * 1e-6):round():half(),
        wide:to "int64" * 2 ^ 40, wide:remainder(7):to "uint8",
        (wide * 1e-5):clamp(-100, 100):to "int8", wide:gt(0),
        wide:t():contiguous():t(), nyx.full({ 2, n }, -0.0) }
      for i, x in ipairs(rows) do
        local values, positions = x:sort(2)
        for _, k in ipairs { 1, math.ceil(n / 3), math.ceil(n / 2), n } do
          local value, position = x:kthvalue(k, 2)
          assert.are.equal(text(values:select(2, k)), text(value), i)
          assert.are.same(positions:select(2, k):totable(), position:totable(), i)
        end
        local numbers = x:is_floating_point() and x:isnan():sum(2) or nyx.zeros({ 2 })
        for row, nans in ipairs(numbers:totable()) do
          local middle, lower = n - nans + 1, math.max(math.floor((n - nans + 1) / 2), 1)
          if nans == 0 then middle = lower end
          local _, at = x:median(2)
          local _, of_numbers = x:nanmedian(2)
          assert.are.equal(positions[{ row, middle }]:item(), at[row]:item(), i)
          assert.are.equal(positions[{ row, lower }]:item(), of_numbers[row]:item(), i)
        end
      end
    end
    fails(function() nyx.ones(3):order_statistic(4) end, "order_statistic", "'k' is 4")
    fails(function() nyx.zeros(2, 0):order_statistic(0) end, "order_statistic", "(2x0)")
  end)
  it("mode", function()
    local values, positions = t({ { 2, 1, 2, 1, 3 }, { 5, 5, 5, 0, 0 } }):mode()
    assert.are.equal("1 5", text(values))
    assert.are.equal("4 3", text(positions))
    assert.are.equal("2 1 2 0 0", text((t({ { 2, 1, 2, 1, 3 }, { 5, 5, 5, 0, 0 } }):mode(1))))
    assert.are.equal(7, (t(7):mode()):item())
    assert.are.equal("7", text((t({ 7 }):mode(1))))
  end)
  it("aminmax, var_mean, std_mean", function()
    local x = t { { 1, 2 }, { 3, 6 } }
    local least, greatest = x:aminmax(2)
    assert.are.equal("1 3", text(least))
    assert.are.equal("2 6", text(greatest))
    local var, mean = x:var_mean(2, 0)
    assert.are.equal("0.25 2.25", text(var))
    assert.are.equal("1.5 4.5", text(mean))
    local std = x:std_mean(2, 0, true)
    assert.are.same({ { 0.5 }, { 1.5 } }, std:totable())
  end)
  it("unique_consecutive", function()
    local values, inverse, counts = t({ 1, 1, 2, nan, nan, 1 }):unique_consecutive()
    assert.are.equal("1 2 nan 1", text(values))
    assert.are.equal("1 1 2 3 3 4", text(inverse))
    assert.are.equal("2 1 2 1", text(counts))
    values, inverse, counts = t({ { 1, 2 }, { 1, 2 }, { 1, 3 } }):unique_consecutive(1)
    assert.are.same({ { 1, 2 }, { 1, 3 } }, values:totable())
    assert.are.equal("1 1 2", text(inverse))
    assert.are.equal("2 1", text(counts))
    values, inverse = t({ { 4, 4 }, { 4, 5 } }):unique_consecutive()
    assert.are.equal("4 5", text(values))
    assert.are.same({ { 1, 1 }, { 1, 2 } }, inverse:totable())
    local long = nyx.randint(1, 3, { 40000 })
    long:narrow(1, 20000, 18000):fill_(7) -- blocks in which no run begins
    for _, x in ipairs { long, long:float(), long:to "uint8", long:double() } do
      local v, i, c = x:unique_consecutive()
      assert.are.equal(1 + x:narrow(1, 2, 39999):ne(x:narrow(1, 1, 39999)):sum():item(), v:numel())
      assert.is_true(v:index_select(i, 1):eq(x):all():item())
      assert.is_true(i:bincount():eq(c):all():item())
    end
    local y = t({ 3, 3, 4 }):requires_grad_()
    y:unique_consecutive():sum():backward()
    assert.are.same({ 1, 0, 1 }, y.grad:totable())
    values, inverse, counts = nyx.zeros(2, 0):unique_consecutive()
    assert.are.same({ { 0 }, { 2, 0 }, { 0 } }, { values.shape, inverse.shape, counts.shape })
  end)
end)

describe("so far", function()
  -- What Lua finds, element by element: of equals the last, the last nan.
  local function model(x, largest)
    local at, found = 1, {}
    for i, v in ipairs(x) do
      local best = x[at]
      if v ~= v or largest and v >= best or not largest and v <= best then at = i end
      found[i] = at
    end
    return found
  end
  it("cummax and cummin find the last of equals, and nan", function()
    local values, positions = t({ 1, 3, 2, 3, nan, 5, nan }):cummax(1)
    assert.are.equal("1 3 3 3 nan nan nan", text(values))
    assert.are.equal("1 2 2 4 5 5 7", text(positions))
    values, positions = t({ 3, 1, 2, 1, -inf }):cummin(1)
    assert.are.equal("3 1 1 1 -inf", text(values))
    assert.are.equal("1 2 2 4 5", text(positions))
    assert.are.equal(3, (t(3):cummax(1)):item())
    assert.are.same({ 0, 2 }, (nyx.zeros(0, 2):cummin(1)).shape)
    check(function(a) return (a:cummax(2)) end, leaf(2, 5))
    check(function(a) return (a:cummin(1)) end, leaf(4, 2))
    fails(function() t({ 1 }):cummax(2) end, "cummax", "dimension 2")
  end)
  it("for every dtype, along rows and columns", function()
    for _, dtype in ipairs { "float64", "float32", "float16", "int64", "int32", "uint8", "bool" } do
      local x = nyx.randint(0, dtype == "bool" and 2 or 50, { 300, 301 }):to(dtype)
      local row, column = x[7]:to("int64"):totable(), x[{ {}, 290 }]:to("int64"):totable()
      for _, largest in ipairs { true, false } do
        assert.are.same(model(row, largest), x:cumargmax(2, largest)[7]:totable())
        assert.are.same(model(column, largest), x:cumargmax(1, largest)[{ {}, 290 }]:totable())
      end
    end
  end)
  it("logcumsumexp does not overflow or lose small beginnings", function()
    local x = t { -1000, -1000, 0, 1000, 1000 }
    local log2 = math.log(2)
    assert.is_true(x:logcumsumexp(1):allclose(t { -1000, -1000 + log2, 0, 1000, 1000 + log2 }))
    assert.are.equal("-inf -inf 1 inf inf", text(t({ -inf, -inf, 1, inf, 2 }):logcumsumexp(1)))
    assert.are.equal("1 nan nan", text(t({ 1, nan, 2 }):logcumsumexp(1)))
    local wide = t({ -800, 800, -800, 0 }):requires_grad_()
    local y = wide:logcumsumexp(1)
    y:sum():backward()
    assert.are.equal("1 3 0 0", text(wide.grad))
    local z = t({ -inf, 1 }):requires_grad_()
    z:logcumsumexp(1):sum():backward()
    assert.are.equal("0 1", text(z.grad))
    local a = nyx.randn(40, 300)
    assert.is_true(a:logcumsumexp(1):allclose(a:double():exp():cumsum(1):log():float(), 1e-5, 1e-6))
    assert.is_true(a:logcumsumexp(2):allclose(a:double():exp():cumsum(2):log():float(), 1e-5, 1e-6))
  end)
end)

describe("sums, means, spread", function()
  it("leave nan out", function()
    local x = t { { 1, nan, 3 }, { nan, nan, nan } }
    assert.are.equal("4 0", text(x:nansum(2)))
    assert.are.equal("2 nan", text(x:nanmean(2)))
    assert.are.equal(4, x:nansum():item())
    assert.are.equal(2, x:nanmean():item())
    assert.are.equal(6, t({ 1, 2, 3 }, "int32"):nansum():item())
    fails(function() t({ 1 }, "int32"):nanmean() end, "nanmean", "int32")
    check(function(a) return a:nanmean(1) end, leaf(3, 2))
    x:requires_grad_():nanmean(2)[1]:backward()
    assert.are.equal("0.5 0 0.5 0 0 0", text(x.grad))
  end)
  it("cov and corrcoef", function()
    local x = t { { 0, 1, 2 }, { 2, 1, 0 } }
    assert.are.same({ { 1, -1 }, { -1, 1 } }, x:cov():totable())
    assert.is_true(x:corrcoef():allclose(t { { 1, -1 }, { -1, 1 } }))
    assert.are.equal(1, x[1]:cov():item())
    assert.are.equal(1, t({ 0, 1, 2 }, "int32"):cov():item())
    local f = t({ 1, 3, 2 }, "int64")
    local repeated = t { { 0, 1, 1, 1, 2, 2 }, { 2, 1, 1, 1, 0, 0 } }
    assert.is_true(x:cov({ fweights = f }):allclose(repeated:cov()))
    assert.is_true(x:cov({ aweights = t { 1, 3, 2 }, correction = 0 })
      :allclose(repeated:cov { correction = 0 }))
    -- 2.8333 by 6 - 14 / 6: weights add up to 6, their squares to 14
    assert.is_true(x[1]:cov({ aweights = t { 1, 3, 2 } }):allclose(t(17 / 22)))
    check(function(a) return a:cov() end, leaf(2, 4))
    check(function(a) return a:corrcoef() end, leaf(2, 4))
    fails(function() x:cov { fweights = t { 1, 2 } } end, "cov", "fweights", "(2)", "vector of 3")
    fails(function() nyx.zeros(1, 1, 1):cov() end, "cov", "at most 2")
    fails(function() nyx.zeros(1, 1, 1):corrcoef() end, "corrcoef", "at most 2")
  end)
  it("renorm", function()
    local x = t { { 3, 4 }, { 0.3, 0.4 } }
    assert.is_true(x:renorm(2, 1, 1):allclose(t { { 0.6, 0.8 }, { 0.3, 0.4 } }))
    assert.is_true(x:renorm(1, 2, 1):allclose(x / x:sum(1), 1e-5, 1e-6))
    fails(function() x[1]:renorm(2, 1, 1) end, "renorm", "at least 2 dimensions")
  end)
end)

describe("histograms", function()
  it("bucketize", function()
    local edges = t { 1, 3, 5 }
    local x = t { { 0, 1, 2 }, { 3, 5, 6 } }
    assert.are.same({ { 1, 1, 2 }, { 2, 3, 4 } }, x:bucketize(edges):totable())
    assert.are.same({ { 1, 2, 2 }, { 3, 4, 4 } }, x:bucketize(edges, true):totable())
    fails(function() x:bucketize(x) end, "bucketize", "boundaries", "vector")
  end)
  it("histc", function()
    local x = t { 0, 1, 2, 3, 4, nan }
    assert.are.equal("1 1 2", text(x:histc(3, 1, 4)))
    assert.are.equal("2 3", text(t({ 0, 1, 2, 3, 4 }):histc(2)))
    assert.are.equal("0 2 0", text(t({ 5, 5 }):histc(3))) -- between 4 and 6
    fails(function() x:histc(3) end, "histc", "finite")
    fails(function() x:histc(3, 2, 1) end, "histc", "2 to 1", "order")
    fails(function() x:histc(0) end, "histc", "bins")
  end)
  it("bins of many elements", function()
    local x = nyx.randint(0, 50, { 300000 })
    for _, of in ipairs { x, x:double(), x:float(), x:to "uint8" } do
      local counts = of:bin_counts { bins = 50, min = -0.5, max = 49.5 }
      assert.are.same((x + 1):bincount():totable(), counts:totable())
    end
    local edges = nyx.tensor({ 3, 4, 10, 11, 49 }, { dtype = "float64" })
    local expected = {}
    for i = 1, 4 do
      local low, high = edges[i]:item(), edges[i + 1]:item()
      local inside = x:ge(low):logical_and(i == 4 and x:le(high) or x:lt(high))
      expected[i] = inside:sum():item()
    end
    for _, even in ipairs { false, true } do
      assert.are.same(expected, x:bin_counts(edges, nil, { even = even }):totable())
      local weight = nyx.full({ 300000 }, 2, { dtype = "float32" })
      local sums = x:bin_counts(edges, weight, { even = even })
      assert.are.equal("float32", sums.dtype)
      for i = 1, 4 do assert.are.equal(2 * expected[i], sums[i]:item()) end
    end
    assert.are.same({ 0, 0 }, nyx.zeros(0):bin_counts(nil, nyx.zeros(0), { bins = 2 }):totable())
    fails(function() x:bin_counts() end, "bin_counts", "bins", "0", "1 to")
    fails(function() x:bin_counts { bins = 2, min = 1, max = 1 } end, "bin_counts", "max", "min")
    fails(function() x:bin_counts(nyx.zeros(1)) end, "bin_counts", "edges", "(1)")
    fails(function() x:bin_counts(edges, edges) end, "bin_counts", "weight", "(5)")
  end)
  it("histogram", function()
    local x = t { 0, 1, 2, 3, 4 }
    local counts, edges = x:histogram(2)
    assert.are.equal("2 3", text(counts))
    assert.are.equal("0 2 4", text(edges))
    assert.are.equal("2 2", text((x:histogram(t { 1, 3, 4 }))))
    assert.are.equal("1 5", text((t({ 0, 1, 2, 4 }):histogram(t { 0, 1, 4 },
      { weight = t { 1, 2, 2, 1 } }))))
    assert.are.equal("0.2 0.3", text((x:histogram(2, { density = true }))))
    assert.are.equal("1 1", text((x:histogram(2, { range = { 0.5, 2.5 } }))))
    fails(function() x:histogram(t { 1 }) end, "histogram", "2 edges")
    fails(function() x:histogram(2, { weight = t { 1 } }) end, "histogram", "weight", "(5)")
  end)
end)
