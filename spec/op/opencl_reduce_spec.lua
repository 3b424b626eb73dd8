-- Reductions on the OpenCL device against the CPU: every op that can keep the dimensions it
-- reduces, and the scans that gradients of products are made of. Sizes lie around those of
-- groups and of the parts that long rows are cut into. Pending where there is no OpenCL; no op
-- is named but where its own arithmetic is tried. The tag `slow` has most dtypes: each kernel
-- costs its compilation. Read next: there.lua, core/device/opencl/reduce.c.
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or "./"
package.path = here .. "?.lua;" .. package.path
local nyx = require "nyx"
local case = require "case"
local there = require "there"
local compare, tolerance = there.compare, there.tolerance

local function reduces(op) return there.attribute(op, "keepdim") ~= nil end
local function lists(op) return there.attribute(op, "dim").type == "dims" end
local quick = { float32 = true, int32 = true }

-- All results of op on both devices; where the CPU raises an error, the same error.
local function both(op, cpu, device, options, what)
  local expected = { pcall(nyx[op.name], cpu, options) }
  local got = { pcall(nyx[op.name], device, options) }
  if not expected[1] then
    assert.is_false(got[1], what)
    local function words(e) return tostring(e):gsub("^.-: ", "") end
    assert.equal(words(expected[2]), words(got[2]), what)
    return
  end
  if not got[1] then error(what .. ": " .. tostring(got[2]), 2) end
  assert.equal(#expected, #got, what)
  for i = 2, #expected do
    compare(got[i], expected[i], (tolerance[cpu.dtype] or 0) * 4, what .. " " .. i)
  end
end

-- Numbers whose sums and products are exact, mostly equal to each other; two of the greatest
-- and two of the least, so that the first of each has to be found.
local function signs(n, dtype)
  local x = nyx.ones(n, { dtype = dtype })
  if dtype ~= "bool" and dtype ~= "uint8" then x[{ { 1, -1, 3 } }] = -1 end
  if n > 8 then
    local third = math.floor(n / 3)
    x[{ { 2 * third, n, n - 2 * third } }] = dtype == "bool" and true or 3
    if dtype ~= "bool" and dtype ~= "uint8" then x[{ { third + 1, n - 1, n - 2 - third } }] = -3 end
  end
  return x
end

local function values(n, dtype)
  if dtype:find "float" and n < 5000 then
    return case.tensor({ n }, dtype, 0.98, 1.02)
  end
  return signs(n, dtype)
end

local sizes = { 1, 63, 64, 65, 255, 256, 257, 4097, 1000003 }

local function check(name, body)
  it(name, function()
    if there.absent then return pending(there.absent) end
    body()
  end)
end

describe("OpenCL reduction", function()
  for _, op in ipairs(there.each(reduces)) do
    for _, dtype in ipairs(op.dtypes) do
      local tag = quick[dtype] and "" or " #slow"
      check(op.name .. " of " .. dtype .. " equals the CPU at every size" .. tag, function()
        case.seed(there.seed)
        for _, n in ipairs(sizes) do
          local x = values(n, dtype)
          local y = x:to "opencl"
          both(op, x, y, nil, op.name .. " of " .. n)
          both(op, x, y, { dim = 1, keepdim = true }, op.name .. " along " .. n)
          local rows = n < 5000 and { 1, 3, 70 } or { 3 }
          for _, m in ipairs(rows) do
            local flat = values(m * n, dtype)
            local wide, tall = flat:reshape(m, n), flat:reshape(n, m)
            local wide_there, tall_there = wide:to "opencl", tall:to "opencl"
            local what = ("%s of %dx%d"):format(op.name, m, n)
            both(op, wide, wide_there, { dim = 2 }, what .. " rows")
            both(op, tall, tall_there, { dim = 1 }, what .. " columns")
            both(op, wide:t(), wide_there:t(), { dim = 1 }, what .. " rows, transposed")
            both(op, tall:t(), tall_there:t(), { dim = 2, keepdim = true },
              what .. " columns, transposed")
            both(op, tall:t(), tall_there:t(), nil, what .. " all, transposed")
          end
        end
      end)

      check(op.name .. " of " .. dtype .. " equals the CPU in every layout" .. tag, function()
        case.seed(there.seed)
        local x = case.tensor({ 4, 6, 5, 3 }, dtype, -1.5, 1.5)
        local y = x:to "opencl"
        local pairs_of = { { x, y }, { x:narrow(2, 2, 2, 2), y:narrow(2, 2, 2, 2) },
          { x:permute { 3, 1, 4, 2 }, y:permute { 3, 1, 4, 2 } },
          { x[{ {}, { 1, 1 } }]:expand(4, 6, 5, 3), y[{ {}, { 1, 1 } }]:expand(4, 6, 5, 3) },
          { x[2][3], y[2][3] }, { x[1][1][1][1], y[1][1][1][1] } }
        for i, p in ipairs(pairs_of) do
          local what = op.name .. " in layout " .. i
          both(op, p[1], p[2], nil, what)
          for d = 1, p[1]:dim() do
            both(op, p[1], p[2], { dim = d }, what)
            both(op, p[1], p[2], { dim = d - p[1]:dim() - 1, keepdim = true }, what)
          end
          if lists(op) and p[1]:dim() == 4 then
            for _, dims in ipairs { { 1, 3 }, { 2, 4 }, { 4, 1, 2 }, { 2, 3 }, { 1, 2, 3, 4 } } do
              both(op, p[1], p[2], { dim = dims }, what)
            end
          end
        end
      end)
    end

    check(op.name .. " of nothing is or raises what it does on the CPU", function()
      for _, shape in ipairs { { 0 }, { 3, 0 }, { 0, 3 }, { 0, 0 } } do
        local x = nyx.zeros(shape)
        local y = x:to "opencl"
        both(op, x, y, nil, op.name .. " of nothing")
        for d = 1, #shape do both(op, x, y, { dim = d }, op.name .. " of nothing along") end
      end
      both(op, nyx.ones(2), nyx.ones(2):to "opencl", { dim = 3 }, op.name .. " of dim 3")
    end)

    check(op.name .. " takes ties, infinities and nan as on the CPU", function()
      local nan, inf = 0 / 0, math.huge
      local rows = { { 1, 2, 2, 1 }, { 0, -0.0, 0, -0.0 }, { -0.0, 0, -0.0, 0 },
        { nan, 1, 2, nan }, { 1, nan, 0, 3 }, { 3, 1, nan, nan }, { inf, 1, inf, 2 },
        { -inf, -inf, -inf, -inf }, { -inf, 1, -inf, 0 }, { inf, -inf, 0, 1 }, { inf, nan, 1, 0 },
        { nan, -inf, inf, nan }, { nan, nan, nan, nan }, { 2, 2, 2, 2 } }
      local x = nyx.tensor(rows)
      for _, times in ipairs { 1, 20, 300 } do -- also spread over work-items and groups
        local long = x:reshape(#rows, 4, 1):expand(#rows, 4, times):reshape(#rows, 4 * times)
        local y = long:to "opencl"
        both(op, long, y, { dim = 2 }, op.name .. " of rows")
        both(op, long:t(), y:t(), { dim = 1 }, op.name .. " of columns")
        both(op, long:t():contiguous(), y:t():contiguous(), { dim = 1 }, op.name .. " down")
        for i = 1, #rows do both(op, long[i], y[i], nil, op.name .. " of row " .. i) end
      end
    end)

    if op.differentiable then
      check(op.name .. " has the CPU's gradients, and theirs", function()
        case.seed(there.seed)
        local function gradients(x, options)
          x = x:detach()
          x.requires_grad = true
          local y = nyx[op.name](x, options)
          local weights = (nyx.ones(y.shape):flatten():cumsum(1) / y:numel()):reshape(y.shape)
          local loss = (y * y * weights:to(y.device)):sum()
          local first = nyx.grad(loss, { x }, { create_graph = true })[1]
          return first, nyx.grad((first * first):sum(), { x })[1]
        end
        for _, shape in ipairs { { 5, 7, 6 }, { 70, 3, 4 } } do
          local x = case.tensor(shape, "float32", 0.5, 1.5)
          x[{ 1, 2 }] = x[{ 2, 2 }] -- ties
          local options = { false, { dim = 1 }, { dim = 2, keepdim = true }, { dim = -1 } }
          if lists(op) then options[5] = { dim = { 1, 3 } } end
          for i, o in ipairs(options) do
            local a, b = gradients(x:to "opencl", o or nil)
            local c, d = gradients(x, o or nil)
            compare(a, c, 5e-5, op.name .. " gradient " .. i)
            compare(b, d, 5e-4, op.name .. " second gradient " .. i)
          end
        end
      end)
    end
  end

  check("norms of every order, and corrections, equal the CPU", function()
    case.seed(there.seed)
    local x = case.tensor({ 70, 30 }, "float32", -1.5, 1.5)
    local y = x:to "opencl"
    for _, p in ipairs { 0, 0.5, 1, 2, 3, math.huge, -math.huge } do
      for dim = 1, 2 do
        compare(y:norm { p = p, dim = dim }, x:norm { p = p, dim = dim }, 8e-5, "norm " .. p)
      end
      local function gradient(t)
        t = t:detach()
        t.requires_grad = true
        return nyx.grad(t:norm { p = p, dim = 2 }:sum(), { t })[1]
      end
      if p ~= 0 then compare(gradient(y), gradient(x), 8e-5, "gradient of norm " .. p) end
    end
    for _, correction in ipairs { 0, 1, 1.5, 70, 71 } do
      for _, name in ipairs { "var", "std" } do
        local o = { dim = 1, correction = correction }
        compare(nyx[name](y, o), nyx[name](x, o), 2e-5, name .. " less " .. correction)
      end
    end
  end)

  check("variances far from zero are as exact as on the CPU", function()
    case.seed(there.seed)
    local x = case.tensor({ 3, 4001 }, "float32", -1, 1) + 1e5
    local y = x:to "opencl"
    compare(y:var { dim = 2 }, x:var { dim = 2 }, 1e-6, "rows")
    compare(y:t():contiguous():std { dim = 1 }, x:std { dim = 2 }, 1e-6, "columns")
    compare(y:var(), x:var(), 1e-6, "all")
  end)

  check("results do not depend on where a tensor lies in its buffer", function()
    local x = nyx.arange(1, 5000, { dtype = "float32" }):sin()
    local y = x:to "opencl"
    for _, first in ipairs { 1, 2, 77 } do
      for _, name in ipairs { "sum", "argmax", "var", "logsumexp" } do
        local a = nyx[name](y:narrow(1, first, 4900))
        compare(a, nyx[name](x:narrow(1, first, 4900)), 8e-5, name)
        compare(a, nyx[name](y:narrow(1, first, 4900):clone()):to "cpu", 0, name)
      end
    end
  end)

  check("counts beyond 32 bits are counted #slow", function()
    local x = nyx.ones(1, { dtype = "uint8" }):to("opencl"):expand(2 ^ 31 + 5)
    assert.equal(2 ^ 31 + 5, x:sum():item())
    local y = nyx.tensor({ 0, 0, 0, 1 }, { dtype = "uint8" }):to "opencl"
    local long = y:reshape(4, 1):expand(4, 2 ^ 29 + 1)
    assert.equal(3 * (2 ^ 29 + 1) + 1, long:argmax():item())
    assert.same({ 0, 0, 0, 2 ^ 29 + 1 }, long:sum({ dim = 2 }):to("cpu"):totable())
  end)
end)

describe("OpenCL scan", function()
  local function scans(op) return op.kind == "portable" and there.attribute(op, "exclusive") end
  for _, op in ipairs(there.each(scans)) do
    for _, dtype in ipairs(op.dtypes) do
      check(op.name .. " of " .. dtype .. " equals the CPU" .. (quick[dtype] and "" or " #slow"),
        function()
          case.seed(there.seed)
          for _, shape in ipairs { { 1 }, { 2, 3 }, { 3, 65, 2 }, { 1025 }, { 0, 2 }, {} } do
            local inputs, device = {}, {}
            for i = 1, #op.inputs do
              inputs[i] = case.tensor(shape, dtype, dtype:find "float" and 0.8 or 0, 1.2)
              device[i] = inputs[i]:to "opencl"
            end
            for dim = 1, math.max(1, #shape) do
              for way = 0, 3 do
                local o = { dim = dim, reverse = way % 2 == 1, exclusive = way > 1 }
                local function run(list)
                  if #list == 1 then return nyx[op.name](list[1], o) end
                  return nyx[op.name](list[1], list[2], o)
                end
                compare(run(device), run(inputs), (tolerance[dtype] or 0) * 4, op.name)
              end
            end
          end
        end)
    end
  end
end)
