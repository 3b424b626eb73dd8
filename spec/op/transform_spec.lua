-- Every op of the table under the transforms: its forward mode against its reverse mode, its
-- batching rule against one entry after the other, and both together. No op is named here.
-- Read next: case.lua, core/transform/lift.h, lua/nyx/func.lua.
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or "./"
package.path = here .. "?.lua;" .. package.path
local nyx = require "nyx"
local case = require "case"

local func = nyx.func
local unpack = table.unpack or unpack -- luacheck: ignore
local seed = tonumber(os.getenv "NYX_SPEC_SEED" or "") or 2024
local ENTRIES = 3

-- Calls of an op: those it names, or for rows a few shapes that broadcast.
local function calls_of(op)
  if op.kind ~= "elementwise" then return case.calls(op) end
  local shapes = { { { 2, 3 }, { 3 }, { 2, 1 } }, { {}, { 2 }, {} }, { { 4 }, { 4 }, { 4 } } }
  local calls = {}
  for k, set in ipairs(shapes) do
    local call = { inputs = {}, attrs = {}, text = "shapes " .. k }
    for i, input in ipairs(op.inputs) do
      call.inputs[i] = { name = input.name, shape = set[i] }
    end
    calls[k] = call
  end
  return calls
end

local function fresh(op, input)
  if input.below then return case.tensor(input.shape, "int64", 1, input.below) end
  if input.mask then return case.tensor(input.shape, "bool", 0, 1) end
  if input.matrices then return case.matrices(input.matrices, input.shape, "float64") end
  local lo, hi = -2, 2
  if op.domain then lo, hi = op.domain[1], op.domain[2] end
  if input.dtype then return case.tensor(input.shape, input.dtype, lo, hi) end
  local dtype = "int64" -- of ops that take no floats
  for _, name in ipairs(op.dtypes) do if name == "float64" then dtype = name end end
  if input.complex then dtype = "float64" end
  local t = case.tensor(case.shape_of(input), dtype, lo, hi)
  if input.name:match "var" or input.name:match "sq" then t = t:abs() + 0.5 end
  return t
end

-- A function of the tensors of a call, in the order they are named.
local function function_of(op, call)
  return function(...)
    local list, args = { ... }, { n = 0 }
    if op.variadic then
      args[1], args.n = list, 1
    else
      local by_name = {}
      for i, input in ipairs(call.inputs) do
        by_name[input.name] = case.as_input(input, list[i])
      end
      for i, input in ipairs(op.inputs) do
        args[i] = by_name[input.name]
        if args[i] then args.n = i end
      end
    end
    if next(call.attrs) then
      args.n = args.n + 1
      args[args.n] = call.attrs
    end
    local results = { nyx[op.name](unpack(args, 1, args.n)) }
    for k = 1, #results do results[k] = case.as_result(results[k]) end
    return results
  end
end

local function numbers(t) return t:reshape(-1):to("float64"):totable() end

local function same(a, b, tolerance, what)
  assert.equal(#a, #b, what .. ": number of results")
  for k = 1, #a do
    assert.same(b[k].shape, a[k].shape, what .. ": shape of result " .. k)
    assert.equal(b[k].dtype, a[k].dtype, what .. ": dtype of result " .. k)
    local got, expected = numbers(a[k]), numbers(b[k])
    for i = 1, #expected do
      local difference = math.abs(got[i] - expected[i])
      local equal = got[i] == expected[i] or (got[i] ~= got[i] and expected[i] ~= expected[i])
      local near = difference <= tolerance * math.max(1, math.abs(expected[i]))
      if not equal and not near then
        error(("%s: result %d, element %d is %.17g, expected %.17g"):format(what, k, i, got[i],
          expected[i]), 2)
      end
    end
  end
end

local function is_random(f, args)
  local first, second = f(unpack(args)), f(unpack(args))
  for k = 1, #first do
    local a, b = numbers(first[k]), numbers(second[k])
    for i = 1, #a do if a[i] ~= b[i] and a[i] == a[i] then return true end end
  end
  return false
end

-- The inner product of results with weights, a number.
local function inner(list, weights)
  local sum = 0
  for k, t in ipairs(list) do
    if t.dtype == "float64" then
      weights[k] = weights[k] or case.tensor(t.shape, "float64", -1, 1)
      sum = sum + (t * weights[k]):sum():item()
    end
  end
  return sum
end

-- <v, J t> is <J^T v, t>.
local function check_forward(op, call, f, args)
  local floats, tangents = {}, {}
  for i, t in ipairs(args) do
    if t.dtype == "float64" then
      floats[#floats + 1] = i
      tangents[i] = case.tensor(t.shape, "float64", -1, 1)
    end
  end
  if #floats == 0 then return end
  if op.no_gradient then
    local ok, message = pcall(func.jvp, f, args, tangents)
    assert.is_false(ok)
    assert.matches("requires a gradient, which this op does not give", message, 1, true)
    return
  end
  local values, derivative = func.jvp(f, args, tangents)
  same(values, f(unpack(args)), 1e-12, call.text .. ": values of duals")
  local weights = {}
  local forward = inner(derivative, weights)
  local reverse = 0
  local xs, vs = {}, {}
  for i, t in ipairs(args) do
    xs[i] = tangents[i] and t:clone() or t
    if tangents[i] then
      xs[i].requires_grad = true
      vs[#vs + 1] = xs[i]
    end
  end
  local total
  for k, y in ipairs(f(unpack(xs))) do
    if y.dtype == "float64" and y.requires_grad then
      local part = (y * weights[k]):sum()
      total = total and total + part or part
    end
  end
  if total then
    local grads = nyx.grad(total, vs)
    for n, i in ipairs(floats) do
      if grads[n] then reverse = reverse + (grads[n] * tangents[i]):sum():item() end
    end
  end
  local difference = math.abs(forward - reverse)
  if not (difference <= 1e-9 * math.max(1, math.abs(reverse))) then -- luacheck: ignore 581
    error(("%s: forward mode gives %.17g, reverse mode %.17g"):format(call.text, forward, reverse))
  end
  -- one input at a time gives the parts of the whole
  local sum = 0
  for _, i in ipairs(floats) do
    local _, part = func.jvp(f, args, { [i] = tangents[i] })
    sum = sum + inner(part, weights)
  end
  assert(math.abs(sum - forward) <= 1e-9 * math.max(1, math.abs(forward)),
    call.text .. ": one input at a time")
  -- forward over forward is symmetric: d/ds d/dt f(x + s a + t b)
  if op.differentiable then
    local i = floats[1]
    local other = case.tensor(args[i].shape, "float64", -1, 1)
    local function mixed(a, b)
      local _, second = func.jvp(function(x)
        local now = { unpack(args, 1, #args) }
        now[i] = x
        local _, first = func.jvp(f, now, { [i] = b })
        return first
      end, { args[i] }, { a })
      return inner(second, weights)
    end
    local one, two = mixed(tangents[i], other), mixed(other, tangents[i])
    assert(math.abs(one - two) <= 1e-8 * math.max(1, math.abs(one)),
      ("%s: second derivatives %.17g and %.17g"):format(call.text, one, two))
  end
end

-- The arguments `mapped` (positions) with entries of their own, as lists of entries.
local function entries_of(op, call, args, mapped)
  local batched, entries = {}, {}
  for e = 1, ENTRIES do entries[e] = {} end
  for i, t in ipairs(args) do
    if mapped[i] then
      local list = { t }
      for e = 2, ENTRIES do list[e] = fresh(op, call.inputs[i]) end
      batched[i] = nyx.stack(list, 1)
      for e = 1, ENTRIES do entries[e][i] = list[e] end
    else
      batched[i] = t
      for e = 1, ENTRIES do entries[e][i] = t end
    end
  end
  return batched, entries
end

-- Whether an input that the op updates is the same for all entries, which is refused.
local function shares_state(op, call, mapped)
  local state = {}
  for _, input in ipairs(op.inputs) do state[input.name] = input.state end
  for i, input in ipairs(call.inputs) do
    if state[input.name] and not mapped[i] then return true end
  end
  return false
end

local function check_batch(op, call, f, args)
  local choices = { {} }
  for i = 1, #args do
    choices[1][i] = 1
    if #args > 1 then choices[#choices + 1] = { [i] = 1 } end
  end
  for _, mapped in ipairs(choices) do
    local batched, entries = entries_of(op, call, args, mapped)
    local in_dims = {}
    for i = 1, #args do in_dims[i] = mapped[i] or false end
    local expected, shapes = {}, true
    for e = 1, ENTRIES do
      for k, y in ipairs(f(unpack(entries[e]))) do
        expected[k] = expected[k] or {}
        expected[k][e] = y
        if table.concat(y.shape, "x") ~= table.concat(expected[k][1].shape, "x") then
          shapes = false
        end
      end
    end
    local what = call.text .. ": mapped " .. table.concat((function()
      local list = {}
      for i in pairs(mapped) do list[#list + 1] = i end
      table.sort(list)
      return list
    end)(), " ")
    if shares_state(op, call, mapped) then
      local ok, message = pcall(func.vmap(f, { in_dims = in_dims }), unpack(batched))
      assert.is_false(ok, what)
      assert.matches("the same for all entries of a vmap", message, 1, true)
    elseif shapes then
      for k = 1, #expected do expected[k] = nyx.stack(expected[k], 1) end
      local got = func.vmap(f, { in_dims = in_dims })(unpack(batched))
      same(got, expected, 1e-12, what)
      -- duals of batches: derivatives along one tangent for each entry
      local i = next(mapped)
      if args[i].dtype == "float64" and op.differentiable then
        local along = case.tensor(batched[i].shape, "float64", -1, 1)
        local derivatives = func.vmap(function(...)
          local list = { ... }
          local t = table.remove(list)
          local _, dy = func.jvp(f, list, { [i] = t })
          return dy
        end, { in_dims = (function()
          local dims = { unpack(in_dims, 1, #args) }
          dims[#args + 1] = 1
          return dims
        end)() })
        local all = { unpack(batched, 1, #args) }
        all[#all + 1] = along
        local found, one_by_one = derivatives(unpack(all)), {}
        for e = 1, ENTRIES do
          local _, dy = func.jvp(f, entries[e], { [i] = along[e] })
          for k, y in ipairs(dy) do
            one_by_one[k] = one_by_one[k] or {}
            one_by_one[k][e] = y
          end
        end
        for k = 1, #one_by_one do one_by_one[k] = nyx.stack(one_by_one[k], 1) end
        same(found, one_by_one, 1e-10, what .. ", derivatives")
      end
    end
  end
end

for op in nyx.ops() do
  if #calls_of(op) > 0 and #op.inputs > 0 then
    describe("op " .. op.name .. " under transforms", function()
      for _, call in ipairs(calls_of(op)) do
        local function prepare()
          case.seed(seed)
          nyx.manual_seed(seed)
          local args = {}
          for i, input in ipairs(call.inputs) do args[i] = fresh(op, input) end
          return function_of(op, call), args
        end
        it("has a forward mode: " .. call.text, function()
          local f, args = prepare()
          if not is_random(f, args) then check_forward(op, call, f, args) end
        end)
        it("maps over a batch: " .. call.text, function()
          local f, args = prepare()
          if not is_random(f, args) then check_batch(op, call, f, args) end
        end)
      end
    end)
  end
end
