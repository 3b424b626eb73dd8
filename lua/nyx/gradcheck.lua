-- nyx.gradcheck and nyx.gradgradcheck: gradients against derivatives that are found without
-- them. This file reads arguments, compares and reports.
-- Read next: gradcheck/jacobian.lua, gradcheck/subject.lua.
local check = require "nyx.check"
local nyx = require "nyx"
local jacobian = require "nyx.gradcheck.jacobian"
local subject = require "nyx.gradcheck.subject"

local lift = nyx.lift
local is_tensor = nyx.is_tensor
local is_float = subject.is_float
local unpack = table.unpack or unpack

local M = {}

-- ---------------------------------------------------------------- arguments

---@class nyx.GradcheckOptions
---@field eps? number
---@field atol? number
---@field rtol? number
---@field method? string
---@field raise_exception? boolean
---@field forward? boolean
---@field batched? boolean
---@field nondet_tol? number
---@field fast? boolean

local known = "eps atol rtol method raise_exception forward batched nondet_tol fast"

local function read_options(name, given)
  local o = {}
  for key, value in pairs(check.options(name, given, known)) do o[key] = value end
  o.custom = o.eps ~= nil and o.atol ~= nil -- what other dtypes than float64 need
  o.method = o.method == nil and "auto"
    or check.choice(name, "method", o.method, "auto numeric complex")
  for _, key in ipairs { "eps", "atol", "rtol", "nondet_tol" } do
    if o[key] ~= nil then check.number(name, key, o[key], 0) end
  end
  if o.eps == 0 then check.fail("%s: 'eps' is 0, expected a step such as 1e-6", name) end
  for _, key in ipairs { "raise_exception", "forward", "batched", "fast" } do
    if o[key] ~= nil then check.type(name, key, o[key], "boolean") end
  end
  if o.raise_exception == nil then o.raise_exception = true end
  o.eps, o.nondet_tol = o.eps or 1e-6, o.nondet_tol or 0
  return o
end

-- Whether two elements of x lie in the same place. Strides that grow past all that is
-- reached by smaller ones say no; otherwise every place is looked at.
local function overlaps(x)
  local stride, shape, order, reach, plain = x:stride(), x.shape, {}, 0, true
  for d, size in ipairs(shape) do
    if size == 0 then return false end
    if size > 1 then order[#order + 1] = d end
  end
  table.sort(order, function(a, b) return stride[a] < stride[b] end)
  for _, d in ipairs(order) do
    plain = plain and stride[d] > reach
    reach = reach + (shape[d] - 1) * stride[d]
  end
  if plain or stride[order[1]] == 0 then return not plain end
  local seen = {}
  for k = 1, x:numel() do
    local place = 0
    for d, i in ipairs(subject.position(shape, k)) do place = place + (i - 1) * stride[d] end
    if seen[place] then return true end
    seen[place] = true
  end
  return false
end

local function check_input(name, label, x, options)
  if x.dtype ~= "float64" and not options.custom then
    check.fail("%s: %s is %s, too coarse for differences of %g; check with x:to(\"float64\"), or "
      .. "give an eps and an atol that suit it, such as {eps = 1e-2, atol = 1e-2}", name, label,
      x.dtype, options.eps)
  end
  if overlaps(x) then
    check.fail("%s: elements of %s share memory (expand, unfold); give a copy (clone), so that "
      .. "each can be moved alone", name, label)
  end
end

-- The arguments of fn, and which of them are to be checked.
local function read_inputs(name, inputs, options)
  if is_tensor(inputs) then inputs = { inputs } end
  check.type(name, "inputs", inputs, "table")
  local args, checked, labels = { n = inputs.n or #inputs }, {}, {}
  for i = 1, args.n do
    local x = inputs[i]
    args[i] = x
    if is_tensor(x) then
      for k = 1, i - 1 do
        if rawequal(args[k], x) then
          check.fail("%s: inputs %d and %d are one tensor; give a copy (clone) as one of them",
            name, k, i)
        end
      end
    end
    if is_tensor(x) and x.requires_grad then
      checked[#checked + 1] = i
      labels[#checked] = ("input %d"):format(i)
      check_input(name, labels[#checked], x, options)
    end
  end
  if #checked == 0 then
    check.fail("%s: no input requires a gradient; ask for it with x:requires_grad_()", name)
  end
  return args, checked, labels
end

local function check_function(name, fn)
  local meta = getmetatable(fn)
  if type(fn) ~= "function" and not (type(meta) == "table" and meta.__call) then
    check.fail("%s: 'fn' is %s, expected a function of tensors", name, check.describe(fn))
  end
end

-- ---------------------------------------------------------------- comparing

---@class nyx.gradcheck.Run
---@field s nyx.gradcheck.Subject
---@field shapes integer[][] of the results
---@field directions nyx.gradcheck.Axis[][]
---@field weights nyx.gradcheck.Axis[][]
---@field columns table what all else is compared with
---@field method string

local names = { numeric = "central differences give", complex = "the complex step gives" }

-- How far two numbers are apart beyond what is allowed; nan counts as infinitely far.
local function excess(run, a, b, scale)
  if a == b then return 0 end
  local apart = math.abs(a - b)
  local allowed = run.atol * scale + run.rtol * math.abs(b)
  if not (apart <= allowed) then -- luacheck: ignore 581
    return apart == apart and apart / math.max(allowed, 1e-300) or math.huge, true
  end
  return apart / math.max(allowed, 1e-300)
end

local function is_finite(v) return v == v and math.abs(v) < math.huge end

-- What may be the matter, from the worst pair and from all that are wrong.
local function advice(run, worst, j)
  if not is_finite(worst.expected) then
    return "fn has no finite derivative there: give inputs inside its domain"
  end
  if not is_finite(worst.got) then
    return "a gradient formula divides by 0 or takes the logarithm of one there; nyx.anomaly "
      .. "finds which"
  end
  local text = run.op[j] and ("correct the gradient of '%s', or of what it was made from; where "
    .. "fn has a step or a kink, give other inputs"):format(run.op[j])
    or "fn must not leave the graph (detach, item, no_grad) on the way from input to output"
  if worst.ratio and worst.ratio ~= 0 and worst.count > 1 then
    text = ("all that are wrong are %.6g times what they should be; "):format(worst.ratio) .. text
  end
  return text
end

local function place(axis, shape)
  if axis.element then return subject.element_text(shape, axis.element) end
  return "a random direction"
end

-- A number in a message; C writes nan with or without a sign.
local function number(v, format)
  return v == v and (format or "%.10g"):format(v) or "nan"
end

local function message(run, worst, j, i, what)
  local s, input = run.s, run.s.args[run.s.checked[i]]
  local allowed = run.atol * worst.scale + run.rtol * math.abs(worst.expected)
  return ("the gradient of %s, %s, by %s, %s, is wrong: %s %s, %s %s (%s apart, %s "
    .. "allowed; %d of %d such pairs are wrong); %s"):format(s.output(j),
    place(run.weights[j][worst.b], run.shapes[j]), s.input[i],
    place(run.directions[i][worst.a], input.shape), what, number(worst.got), names[run.method],
    number(worst.expected), number(math.abs(worst.got - worst.expected), "%.3g"),
    number(allowed, "%.3g"), worst.count, #run.weights[j] * #run.directions[i],
    advice(run, worst, j))
end

-- Compares number for number what get(j, b, i, a) gives, the derivative of output j weighted by
-- b along direction a of input i; gives a message about the worst pair.
local function compare(run, what, get)
  for j, weights in ipairs(run.weights) do
    for i, directions in ipairs(run.directions) do
      local worst = { excess = 0, count = 0 }
      for a, direction in ipairs(directions) do
        local column = run.columns[i][a][j]
        for b, weight in ipairs(weights) do
          local expected, got = jacobian.along(weight, column), get(j, b, i, a)
          local scale = direction.size * weight.size
          local e, wrong = excess(run, got, expected, scale)
          run.largest = math.max(run.largest, e)
          if wrong then
            local ratio = got / expected
            worst.count = worst.count + 1
            if worst.count == 1 then worst.ratio = ratio end
            if worst.ratio and not (math.abs(ratio - worst.ratio) -- luacheck: ignore 581
              <= 1e-5 * math.abs(worst.ratio)) then
              worst.ratio = nil
            end
          end
          if e > worst.excess then
            worst.excess, worst.a, worst.b = e, a, b
            worst.got, worst.expected, worst.scale = got, expected, scale
          end
        end
      end
      if worst.count > 0 then return message(run, worst, j, i, what) end
    end
  end
end

-- ---------------------------------------------------------------- the checks, in order

-- Which results are compared: floats that backward reaches. What it does not reach counts as
-- constant where nothing is reached, or all has to be.
local function choose_results(run, results)
  local reached = false
  for _, y in ipairs(results) do reached = reached or y.requires_grad end
  run.weights, run.shapes, run.op = {}, {}, {}
  for j, y in ipairs(results) do
    local wanted = is_float[y.dtype] and (y.requires_grad or run.s.strict or not reached)
    run.weights[j] = wanted and jacobian.axes(y, run.options.fast) or {}
    run.shapes[j] = y.shape
    run.op[j] = y.requires_grad and y.grad_fn and y.grad_fn.name
    run.compared = run.compared + (wanted and 1 or 0)
  end
end

-- The derivatives that all else is compared with, in run.columns.
local function find_columns(run)
  local s, o = run.s, run.options
  if o.method == "complex" then
    run.columns = jacobian.complex_step(s, run.directions)
  elseif o.method == "auto" and not s.reason then
    -- fn did its work on plain tensors before: what fails now is the complex step
    local ok, result = pcall(jacobian.complex_step, s, run.directions)
    run.columns = ok and result
    run.reason = not ok and tostring(result):gsub("^%S-:%d+: ", "", 1) or nil
  else
    run.reason = o.method == "auto" and s.reason or nil
  end
  run.method = run.columns and "complex" or "numeric"
  run.columns = run.columns or jacobian.differences(s, run.directions, o.eps)
  run.atol = o.atol or run.method == "complex" and 1e-10 or 1e-5
  run.rtol = o.rtol or run.method == "complex" and 1e-9 or 1e-3
end

-- Whether two backward passes give the same, along one random vector for each result.
local function check_repeats(run, variables, results)
  local weights = {}
  for j, y in ipairs(results) do
    weights[j] = y.requires_grad and jacobian.axes(y, true) or {}
  end
  local first = jacobian.backward(variables, results, weights)
  local again = jacobian.backward(variables, results, weights)
  variables, results = jacobian.record(run.s)
  local second = jacobian.backward(variables, results, weights)
  for j, rows in pairs(first) do
    for b, row in ipairs(rows) do
      for i, list in ipairs(row) do
        for k, v in ipairs(list or {}) do
          for _, other in ipairs { again[j][b][i] or {}, second[j][b][i] or {} } do
            local w = other[k] or 0
            if v ~= w and v == v and not (math.abs(v - w) -- luacheck: ignore 581
              <= run.options.nondet_tol) then
              return ("two backward passes differ: the gradient of %s by %s, %s, is %.17g and "
                .. "%.17g; nondet_tol allows for it"):format(run.s.output(j), run.s.input[i],
                subject.element_text(variables[i].shape, k), v, w)
            end
          end
        end
      end
    end
  end
end

local function check_backward(run, variables, results)
  local rows = jacobian.backward(variables, results, run.weights)
  local problem = compare(run, "backward gives", function(j, b, i, a)
    return rows[j] and jacobian.along(run.directions[i][a], rows[j][b][i]) or 0
  end)
  if problem or not run.options.batched then return problem end
  local batch = jacobian.batched(variables, results, run.weights)
  return compare(run, "backward under vmap gives", function(j, b, i, a)
    return batch[j] and jacobian.along(run.directions[i][a], batch[j][b][i]) or 0
  end)
end

local function check_forward(run)
  local columns = jacobian.forward(run.s, run.directions)
  return compare(run, "forward mode gives", function(j, b, i, a)
    return jacobian.along(run.weights[j][b], columns[i][a][j])
  end)
end

---@class nyx.GradcheckReport
---@field method string "complex" or "numeric": what the gradients were compared with
---@field reason string? why it was not the complex step that "auto" tried
---@field inputs integer how many were checked
---@field outputs integer
---@field error number the largest difference found, as a part of what is allowed
local Report = {}
Report.__index = Report

function Report:__tostring()
  local text = ("gradcheck: %d inputs and %d outputs agree with %s; the largest difference is "
    .. "%.3g of what is allowed"):format(self.inputs, self.outputs,
    self.method == "complex" and "the complex step" or "central differences", self.error)
  return self.reason and text .. " (" .. self.reason .. ")" or text
end

-- All checks. Gives a message about the first that fails, or nil and a report.
local function run_checks(s, options)
  jacobian.reset()
  local run = { s = s, options = options, largest = 0, compared = 0, directions = {} }
  local _, problem = subject.probe(s)
  if problem then return problem end
  for i, argument in ipairs(s.checked) do
    run.directions[i] = jacobian.axes(s.args[argument], options.fast)
  end
  local variables, results = jacobian.record(s)
  choose_results(run, results)
  if run.compared == 0 then
    return "fn gives no float tensors, only " .. check.describe(results[1]) .. " and dtype "
      .. results[1].dtype .. ": there is nothing to differentiate"
  end
  find_columns(run)
  problem = check_repeats(run, variables, results) or check_backward(run, variables, results)
    or options.forward and check_forward(run)
  if problem then return problem end
  return nil, setmetatable({ method = run.method, reason = run.reason, inputs = #s.checked,
    outputs = run.compared, error = run.largest }, Report)
end

-- A wrong pair of random directions says little: where that is affordable, all elements tell
-- which it is.
local FAST_LIMIT = 2000

local function finish(s, options)
  local problem, report = run_checks(s, options)
  if problem and options.fast then
    local count = 0
    for _, argument in ipairs(s.checked) do count = count + s.args[argument]:numel() end
    if count <= FAST_LIMIT then
      options.fast = false
      problem = run_checks(s, options) or problem
    else
      problem = problem .. "; without fast the element is named"
    end
  end
  if not problem then return true, report end
  if options.raise_exception then check.fail("%s: %s", s.name, problem) end
  return false, s.name .. ": " .. problem
end

--- Checks the gradients of fn(unpack(inputs)) by the inputs that require one, which should be
--- float64: backward against derivatives found without it. Gives true and a report, which
--- tostring makes readable. What fails is an error that names input, output and elements; with
--- raise_exception = false the result is false and the message.
---
--- fn gets the inputs as they are in the list, tensors or not, and gives tensors, or tables of
--- them; integer results are skipped. It may find its inputs by itself, too, as a module does
--- its parameters: gradcheck(function() return net(x) end, net:parameters()). Most calls are
--- under nyx.no_grad; gradients that fn takes itself come from nyx.func.grad.
---
--- Checked are, in this order: that fn gives the same twice and leaves its inputs alone; that
--- backward gives the same twice, within nondet_tol (0); every element of every output
--- by every element of every input, |backward - derivative| <= atol + rtol * |derivative|;
--- with batched = true, backward under nyx.func.vmap; with forward = true, forward mode
--- (nyx.func.jvp). With fast = true one random direction of each input and one random weighting
--- of each output stand for all elements, for large inputs; a single wrong element may then
--- drown.
---
--- The derivatives are found by the method "complex", the complex step, which is exact to
--- rounding (atol 1e-10, rtol 1e-9): fn is computed with complex numbers, from the text of an
--- elementwise op's value and the op itself where it is linear or a product. Or by "numeric",
--- central differences of step eps (1e-6; atol 1e-5, rtol 1e-3). "auto" (default) tries the
--- complex step, and takes differences where an op has no rule for it, an element is read
--- (item), or something is not float64; the report says why.
---@param fn function
---@param inputs any[]
---@param options? nyx.GradcheckOptions
---@return boolean ok
---@return nyx.GradcheckReport|string report or message
function M.gradcheck(fn, inputs, options)
  local name = "gradcheck"
  options = read_options(name, options)
  check_function(name, fn)
  local args, checked, labels = read_inputs(name, inputs, options)
  local s = { name = name, fn = fn, args = args, checked = checked, input = labels,
    output = function(j) return ("output %d"):format(j) end }
  return finish(s, options)
end

-- ---------------------------------------------------------------- second order

-- Which results of fn have a gradient, and what their gradients are multiplied with: given, or
-- random.
local function read_grad_outputs(s, given)
  local name = s.name
  if is_tensor(given) then given = { given } end
  if given ~= nil then check.type(name, "grad_outputs", given, "table") end
  local _, results = jacobian.record(s)
  local chosen, grads = {}, {}
  for j, y in ipairs(results) do
    if y.requires_grad then
      local g = given and given[j]
      if given and not is_tensor(g) then
        check.fail("%s: grad_outputs[%d] is %s, expected a tensor like output %d, %s", name, j,
          check.describe(g), j, check.describe(y))
      end
      if g and (table.concat(g.shape, "x") ~= table.concat(y.shape, "x") or g.dtype ~= y.dtype) then
        check.fail("%s: grad_outputs[%d] is %s and dtype %s, expected that of output %d, %s and "
          .. "dtype %s", name, j, check.describe(g), g.dtype, j, check.describe(y), y.dtype)
      end
      chosen[#chosen + 1] = j
      grads[#chosen] = g or jacobian.random_like(y)
      if not g then grads[#chosen]:requires_grad_(true) end
    end
  end
  return chosen, grads
end

-- fn's gradients by its checked inputs, as a function of its arguments and of the outputs'
-- gradients.
local function gradient_function(s, chosen)
  return function(...)
    local given = subject.pack(...)
    local recorded, variables, total = nyx.is_grad_enabled(), {}, {}
    for i, argument in ipairs(s.checked) do variables[i] = lift.variable(given[argument]) end
    local results = subject.call(s, s.checked, variables, nyx.enable_grad)
    for k, j in ipairs(chosen) do
      local grads = nyx.grad(results[j], variables, { gradient = given[s.args.n + k],
        create_graph = recorded, retain_graph = true })
      for i = 1, #variables do
        if grads[i] then total[i] = total[i] and total[i] + grads[i] or grads[i] end
      end
    end
    for i, x in ipairs(variables) do total[i] = total[i] or nyx.zeros_like(x:detach()) end
    return unpack(total, 1, #variables)
  end
end

--- Checks the gradients of the gradients: what nyx.grad(fn(...), inputs, {gradient =
--- grad_outputs}) gives, as a function of the inputs and of grad_outputs, by gradcheck, with its
--- options. grad_outputs is a list with a tensor for each output, random numbers if left out;
--- those that require a gradient are inputs too, random ones always. The derivatives are
--- differences of first-order gradients, so these should be right before.
---@param fn function
---@param inputs any[]
---@param grad_outputs? nyx.Tensor[] may be left out also where options follow
---@param options? table
---@return boolean ok
---@return nyx.GradcheckReport|string report or message
function M.gradgradcheck(fn, inputs, grad_outputs, options)
  local name = "gradgradcheck"
  if options == nil and type(grad_outputs) == "table" and not is_tensor(grad_outputs)
    and next(grad_outputs) ~= nil and grad_outputs[1] == nil then
    grad_outputs, options = nil, grad_outputs
  end
  options = read_options(name, options)
  check_function(name, fn)
  local args, checked, labels = read_inputs(name, inputs, options)
  local first = { name = name, fn = fn, args = args, checked = checked, input = labels }
  jacobian.reset()
  local chosen, grads = read_grad_outputs(first, grad_outputs)
  if #chosen == 0 then check.fail("%s: no output of fn has a gradient", name) end
  local s = { name = name, fn = gradient_function(first, chosen), strict = true,
    reason = "gradients are not computed with complex numbers",
    args = { n = args.n + #chosen, unpack(args, 1, args.n) }, checked = {}, input = {},
    output = function(i) return "the gradient by " .. labels[i] end }
  for i, argument in ipairs(checked) do s.checked[i], s.input[i] = argument, labels[i] end
  for k, g in ipairs(grads) do
    s.args[args.n + k] = g
    if g.requires_grad then
      s.checked[#s.checked + 1] = args.n + k
      s.input[#s.checked] = ("the gradient of output %d"):format(chosen[k])
      check_input(name, s.input[#s.checked], g, options)
    end
  end
  return finish(s, options)
end

return M
