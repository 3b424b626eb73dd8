-- Every op of the table, tested from what it says of itself: values against an oracle,
-- layouts against each other, gradients by nyx.gradcheck and nyx.gradgradcheck. No op is named
-- here; a new row is tested by being there. Read next: case.lua, oracle.c,
-- lua/nyx/gradcheck.lua.
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or "./"
package.path = here .. "?.lua;" .. package.path
local nyx = require "nyx"
local case = require "case"
local has_oracle, oracle = pcall(require, "nyx_oracle")

local seed = tonumber(os.getenv "NYX_SPEC_SEED" or "") or 2024

-- How far a result may be from the oracle, relative to max(1, |expected|): a few units in
-- the last place of the dtype.
local tolerance = { float64 = 4e-14, float32 = 4e-6, float16 = 2e-3, bfloat16 = 1.6e-2 }

local function unequal(a, b, tol)
  if a ~= a or b ~= b then return (a == a) ~= (b == b) end
  if a == b then return false end
  return not (math.abs(a - b) <= tol * math.max(1, math.abs(b))) -- luacheck: ignore 581
end

local function number(v) return v == true and 1 or v == false and 0 or v end

local function numbers(t)
  local flat = t:reshape(-1):totable()
  for i = 1, #flat do flat[i] = number(flat[i]) end
  return flat
end

-- Compares a tensor with a list of expected numbers.
local function compare(y, expected, tol, what)
  local got = numbers(y)
  assert.equal(#expected, #got, what .. ": number of elements")
  for i = 1, #got do
    if unequal(got[i], expected[i], tol) then
      error(("%s: element %d is %.17g, expected %.17g"):format(what, i, got[i], expected[i]), 2)
    end
  end
end

local function by_kind(kind)
  local list = {}
  for op in nyx.ops() do
    if op.kind == kind then list[#list + 1] = op end
  end
  return list
end

local function attrs_of(op)
  local p, q = 0, 0
  if op.attrs[1] and type(op.attrs[1].preset) == "number" then p = op.attrs[1].preset end
  if op.attrs[2] and type(op.attrs[2].preset) == "number" then q = op.attrs[2].preset end
  return p, q
end

-- Values of inputs in each layout: a list of {name, tensors}.
local function layouts(op, dtype)
  local lo, hi = op.domain[1], op.domain[2]
  local n = #op.inputs
  local function all(make)
    local out = {}
    for i = 1, n do out[i] = make(i) end
    return out
  end
  local function plain(shape)
    return all(function() return case.tensor(shape, dtype, lo, hi) end)
  end
  local list = {
    { "contiguous", plain { 37 } },
    { "three dimensions", plain { 3, 4, 5 } },
    { "0-d", plain {} },
    { "empty", plain { 2, 0, 3 } },
    { "strided", all(function() return case.strided(case.tensor({ 5, 7 }, dtype, lo, hi)) end) },
    { "transposed", all(function(i)
      local t = case.tensor(i == 1 and { 6, 9 } or { 9, 6 }, dtype, lo, hi)
      return i == 1 and t or t:transpose(1, 2)
    end) },
    { "long", plain { 3000 } },
  }
  if n > 1 then
    list[#list + 1] = { "broadcast", all(function(i)
      return case.tensor(i == 1 and { 4, 1, 6 } or { 5, 6 }, dtype, lo, hi)
    end) }
    list[#list + 1] = { "broadcast rows", all(function(i)
      return case.tensor(i == 1 and { 33, 17 } or { 17 }, dtype, lo, hi)
    end) }
  end
  return list
end

-- Expected values of an elementwise row: the oracle on every element of the inputs, read
-- back after rounding to their dtype and broadcast.
local function expected_of(op, inputs, y)
  local values = {}
  for i, x in ipairs(inputs) do values[i] = numbers(x:expand(y.shape)) end
  local p, q = attrs_of(op)
  local kind = (y.dtype == "bool" and inputs[#inputs].dtype or y.dtype)
  local is_int = not case.is_float[kind]
  local out = {}
  for k = 1, y:numel() do
    out[k] = oracle.forward(op.name, is_int, values[1][k], values[2] and values[2][k] or 0,
      values[3] and values[3][k] or 0, p, q)
  end
  return out
end

-- Checks the gradient of fn by those of a list that are float64; the first order by the
-- complex step where there is one, as always for rows (exact: true). The second order of large
-- inputs along random directions, as its time grows with the square of their size.
local function check_gradient(order, fn, list, exact)
  local inputs, count = {}, 0
  for i, t in ipairs(list) do
    inputs[i] = t.dtype == "float64" and t:detach():requires_grad_(true) or t
    if inputs[i] ~= t then count = count + t:numel() end
  end
  if order == 1 and exact then
    nyx.gradcheck(fn, inputs, { method = "complex" })
  elseif order == 1 then
    nyx.gradcheck(fn, inputs, { atol = 1e-6, rtol = 1e-6 })
  else
    nyx.gradgradcheck(fn, inputs, { eps = 1e-5, atol = 2e-5, rtol = 2e-5, fast = count > 60 })
  end
end

describe("elementwise row", function()
  for _, op in ipairs(by_kind "elementwise") do
    for _, dtype in ipairs(op.dtypes) do
      it(op.name .. " on " .. dtype .. " equals the oracle in every layout", function()
        if not has_oracle then return pending "nyx_oracle is not built" end
        case.seed(seed)
        for _, layout in ipairs(layouts(op, dtype)) do
          local y = nyx[op.name]((table.unpack or unpack)(layout[2])) -- luacheck: ignore
          local expected = expected_of(op, layout[2], y)
          local tol = tolerance[y.dtype] or tolerance[dtype] or 0
          if y.dtype == "bool" then
            tol = 0
            for k, v in ipairs(expected) do expected[k] = v ~= 0 and 1 or 0 end
          end
          if not case.is_float[y.dtype] and y.dtype ~= "bool" then
            -- Integers wrap: compare in the result's dtype.
            expected = numbers(nyx.tensor(expected, { dtype = "int64" }):to(y.dtype))
          end
          compare(y, expected, tol, op.name .. ", " .. layout[1])
        end
      end)
    end

    it(op.name .. " keeps what the oracle makes of nan and infinities", function()
      if not has_oracle then return pending "nyx_oracle is not built" end
      local nan, inf = 0 / 0, math.huge
      local special = { nan, inf, -inf, 0, -0.0, 1, -1 }
      for _, dtype in ipairs { "float32", "float64" } do
        local supported, half = false, false
        for _, d in ipairs(op.dtypes) do
          supported, half = supported or d == dtype, half or d == "float16"
        end
        -- What half types cannot compute in float32 the oracle cannot in float64.
        if supported and (half or dtype == "float64") then
          local inputs = {}
          for i = 1, #op.inputs do
            local column = nyx.tensor(special, { dtype = dtype })
            for _ = 2, i do column = column:unsqueeze(-1) end
            inputs[i] = column
          end
          local y = nyx[op.name]((table.unpack or unpack)(inputs)) -- luacheck: ignore
          compare(y, expected_of(op, inputs, y), tolerance[dtype], op.name .. " of " .. dtype)
        end
      end
    end)

    it(op.name .. " writes in place what it returns", function()
      case.seed(seed)
      local dtype = op.dtypes[1]
      local inputs = layouts(op, dtype)[5][2]
      local unpack = table.unpack or unpack -- luacheck: ignore
      local y = nyx[op.name](unpack(inputs))
      if y.dtype ~= dtype then return end
      local expected = numbers(y)
      local same = inputs[1][op.name .. "_"](unpack(inputs))
      assert.equal(inputs[1], same)
      compare(inputs[1], expected, 0, op.name .. "_")
    end)

    if op.differentiable then
      for order = 1, 2 do
        it(("%s has the gradient of order %d"):format(op.name, order), function()
          case.seed(seed + order)
          local inputs = {}
          for i = 1, #op.inputs do
            inputs[i] = case.tensor(i == 1 and { 2, 3 } or i == 2 and { 3 } or { 2, 1 },
              "float64", op.domain[1], op.domain[2])
          end
          for i = 1, #inputs do
            if order == 2 and case.constant(op, i) then inputs[i] = inputs[i]:float() end
          end
          check_gradient(order, nyx[op.name], inputs, true)
        end)
      end
    end
  end
end)

describe("reduction", function()
  local shapes = { { 7 }, { 4, 5 }, { 3, 4, 5 }, { 2, 70, 3 }, { 1300 } }
  for _, op in ipairs(by_kind "reduction") do
    for _, dtype in ipairs(op.dtypes) do
      it(op.name .. " on " .. dtype .. " equals the oracle over any dimensions", function()
        if not has_oracle then return pending "nyx_oracle is not built" end
        case.seed(seed)
        for _, shape in ipairs(shapes) do
          local base = case.tensor(shape, dtype, -2, 2)
          for _, x in ipairs { base, case.strided(base) } do
            for dim = 0, #shape do
              local result = dim == 0 and { nyx[op.name](x) }
                or { nyx[op.name](x, { dim = dim, keepdim = dim % 2 == 0 }) }
              -- Rows of what is reduced together, the reduced dimension last.
              local rows = dim == 0 and x:reshape(1, -1)
                or x:transpose(dim, #shape):reshape(-1, x:size(dim))
              local y = dim == 0 and result[1] or
                (dim % 2 == 0 and result[1] or result[1]:unsqueeze(dim)):transpose(dim, #shape)
              local expected = {}
              local list = rows:totable()
              for r = 1, #list do
                for k = 1, #list[r] do list[r][k] = number(list[r][k]) end
                expected[r] = oracle.reduce(op.name, list[r], not case.is_float[dtype],
                  (attrs_of(op)))
              end
              local tol = (tolerance[dtype] or 0) * (dtype == "float16" and 4 or 8)
              compare(y, expected, tol, ("%s over %d of %d"):format(op.name, dim, #shape))
            end
          end
        end
      end)
    end
    if op.differentiable then
      for order = 1, 2 do
        it(("%s has the gradient of order %d"):format(op.name, order), function()
          case.seed(seed + order)
          local x = case.tensor({ 2, 3, 4 }, "float64", 0.3, 2)
          for _, options in ipairs { {}, { dim = 2 }, { dim = -1, keepdim = true } } do
            check_gradient(order, function(t) return (nyx[op.name](t, options)) end, { x })
          end
        end)
      end
    end
  end
end)

-- Ops whose results are random cannot be compared with themselves.
local function is_random(op) return op.group == "random" end

for _, kind in ipairs { "structural", "portable", "view", "composite" } do
  describe(kind .. " op", function()
    for _, op in ipairs(by_kind(kind)) do
      local calls = case.calls(op)
      it(op.name .. " names at least one call to test", function()
        assert(#calls > 0, op.name .. " has no cases")
      end)
      for _, call in ipairs(calls) do
        local label = op.name .. " " .. call.text
        if not is_random(op) then
          it(label .. ": the same from any strides and in any float dtype", function()
            -- Fresh inputs each time: some ops keep state in theirs.
            local function results(change)
              case.seed(seed)
              local args, list = case.arguments(op, call, "float64")
              local changed = {}
              for _, t in ipairs(list) do changed[t] = change(t) end
              return { case.apply(op, call, args, changed) }
            end
            local reference = results(function(t) return t end)
            if op.kind ~= "view" and not op.updates then
              for i, y in ipairs(results(case.strided)) do
                compare(y, numbers(reference[i]), 1e-12, label .. ", strided")
              end
            end
            local function narrow(t) return t.dtype == "float64" and t:to "float32" or t end
            for i, y in ipairs(results(narrow)) do
              if case.is_float[reference[i].dtype] then
                compare(y, numbers(reference[i]), 2e-5, label .. ", float32")
              end
            end
          end)
        end
        local written = kind == "structural" or kind == "portable"
        local drawn = is_random(op) and #call.inputs > 0 -- not the same from other strides
        if written and not op.updates and not drawn then
          it(label .. ": writes to any out what it returns", function()
            local function result(change, out)
              case.seed(seed)
              nyx.manual_seed(7)
              local args, list = case.arguments(op, call, "float64")
              local changed, attrs = {}, { out = out }
              for _, t in ipairs(list) do changed[t] = change(t) end
              for name, value in pairs(call.attrs) do attrs[name] = value end
              return case.call(op, { attrs = attrs }, args, changed)
            end
            local function same(t) return t end
            local y, more = result(same)
            if more or not nyx.is_tensor(y) then return end
            local expected = numbers(case.as_result(y))
            for _, change in ipairs { same, case.strided } do
              for _, layout in ipairs { same, case.strided } do
                local out = layout(nyx.full_like(y, y.dtype == "bool" and 1 or 99))
                result(change, out)
                compare(case.as_result(out), expected, 1e-12, label)
              end
            end
          end)
        end
        -- Composites have the gradients of what they are made of.
        if op.differentiable or op.kind == "composite" then
          for order = 1, 2 do
            it(("%s has the gradient of order %d"):format(label, order), function()
              case.seed(seed + order)
              local args, list = case.arguments(op, call, "float64")
              check_gradient(order, function(...)
                local replace = {}
                for i, t in ipairs(list) do
                  local x = select(i, ...)
                  -- Of symmetric matrices, whose gradients are symmetric.
                  local symmetric = call.inputs[i].matrices == "definite"
                  replace[t] = symmetric and (x + x:transpose(-1, -2)) / 2 or x
                end
                nyx.manual_seed(7)
                return case.apply(op, call, args, replace)
              end, list)
            end)
          end
        end
      end
    end
  end)
end

describe("the table", function()
  it("documents every op", function()
    for op in nyx.ops() do
      assert(#op.doc > 0 and #op.group > 0, op.name)
      for _, attr in ipairs(op.attrs) do
        assert(#attr.doc > 0, op.name .. "." .. attr.name)
      end
    end
  end)
  it("refuses wrong dtypes and shapes with an error that names the op", function()
    for _, op in ipairs(by_kind "elementwise") do
      if #op.inputs > 1 then
        local args = {}
        for i = 1, #op.inputs do
          args[i] = nyx.zeros(i == 1 and { 2, 3 } or { 4 }, { dtype = op.dtypes[1] })
        end
        local ok, message = pcall(nyx[op.name], (table.unpack or unpack)(args)) -- luacheck: ignore
        assert.is_false(ok)
        assert(message:find(op.name, 1, true) and message:find("2x3", 1, true), message)
      end
    end
  end)
end)
