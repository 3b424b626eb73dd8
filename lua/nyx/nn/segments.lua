-- nn.checkpoint_sequential: a Sequential whose layers run as checkpoints, in segments that
-- are given in number or found for a memory budget.
-- Read next: lua/nyx/checkpoint.lua, container.lua.
local check = require "nyx.check"
local checkpoint = require "nyx.checkpoint"
local nyx = require "nyx"

local M = {}

-- ---------------------------------------------------------------- what layers need

local function live() return nyx.memory().live end

local function apply(layer, x)
  local y = nyx.scope(function() return layer(x) end)
  if not nyx.is_tensor(y) then
    check.fail("nn.checkpoint_sequential: a layer gave %s, expected one tensor", check.describe(y))
  end
  return y
end

-- A leaf with the elements of t, which it shares or not.
local function leaf_like(t, share)
  local leaf = t:detach()
  if not share then
    local view = leaf
    leaf = view:clone()
    view:release() -- everything counts here
  end
  return t.requires_grad and leaf:requires_grad_(true) or leaf
end

-- The layer on a leaf; then the next one on its output, which may be the last to need it.
local function measure(layer, x, following, outer)
  local before = live()
  local y = apply(layer, x)
  local kept, bytes, spare = live() - before, y:numel() * y:element_size(), 0
  local output = kept >= bytes and bytes or outer -- a view keeps what it is a view of
  local plain = leaf_like(y, false)
  if following and not rawequal(x, y) then
    local z = apply(following, y)
    before = live()
    if not rawequal(y, z) then y:release() end
    spare = math.min(before - live(), output)
    z:release()
  end
  y:release()
  x:release()
  return { kept = kept, output = output, spare = spare }, plain
end

local function measure_all(seq, x)
  local h, layers, size = leaf_like(x, true), {}, x:numel() * x:element_size()
  for i = 1, #seq do
    layers[i], h = measure(seq[i], h, seq[i + 1], size)
    size = layers[i].output
  end
  return layers
end

--- Runs the layers of a Sequential, one by one, and gives what each needs in bytes: `kept`
--- while its gradient can still be computed and its output is there, `output` for that, and
--- how much of it is to `spare` once the next layer has run.
---@param seq nyx.nn.Sequential
---@param x nyx.Tensor
---@return {kept: integer, output: integer, spare: integer}[]
function M.measure_layers(seq, x)
  check.type("nn.measure_layers", "seq", seq, "table")
  check.tensor("nn.measure_layers", "x", x)
  for _ = 1, 3 do collectgarbage() end -- so that nothing else goes away meanwhile
  return checkpoint.rehearse(measure_all, seq, x)
end

-- ---------------------------------------------------------------- the plan

-- The memory model, in bytes beyond the input of the whole and the parameters. `stored` is
-- what the layers up to some place leave behind in the forward pass: all they keep (their
-- outputs only where something needs them), or, of a checkpointed segment, its last output.
-- While the gradient of a segment is computed there is stored (of what lies before) + what all
-- its layers keep + the gradients of the output and the input of one layer + if it is
-- checkpointed the gradient that came to it. The peak is the greatest of these sums.

local function in_flight(layers, i)
  return layers[i].output + (i > 1 and layers[i - 1].output or layers[i].output)
end

-- The best way to each place: for every number of layers, of recomputed ones among them
-- (where `count`), and whether the last one is kept, the way on which the least is stored:
-- {stored, from, checkpoint, recomputed, before}. All ways stay within the budget.
local function search(layers, budget, count)
  local n = #layers
  local best = { [0] = { [0] = { stored = 0, recomputed = 0, checkpoint = true } } }
  for i = 1, n do best[i] = {} end
  local function offer(before, from, to, again, stored)
    local recomputed = before.recomputed + (again and to - from or 0)
    local key = (count and 2 * recomputed or 0) + (again and 0 or 1)
    local known = best[to][key]
    if not known or stored < known.stored then
      best[to][key] = { stored = stored, from = from, checkpoint = again,
        recomputed = recomputed, before = before }
    end
  end
  for i = 0, n - 1 do
    for _, way in pairs(best[i]) do
      local spared = way.checkpoint and 0 or layers[i].spare or 0
      local after = way.stored - spared + layers[i + 1].kept
      if after + in_flight(layers, i + 1) <= budget then offer(way, i, i + 1, false, after) end
      local full, moving = way.stored, 0
      for j = i + 1, n do
        full = full + layers[j].kept - (j > i + 1 and layers[j - 1].spare or 0)
        moving = math.max(moving, in_flight(layers, j))
        if full + moving - (layers[j].spare or 0) > budget then break end
        if full + moving + layers[j].output <= budget then
          offer(way, i, j, true, way.stored + layers[j].output)
        end
      end
    end
  end
  return best[n]
end

-- The least budget for which there is a way.
local function least_peak(layers)
  local low, high = -1, 1
  while not next(search(layers, high)) do low, high = high, 2 * high end
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if next(search(layers, middle)) then high = middle else low = middle end
  end
  return high
end

-- Segments in order, with layers that are not checkpointed joined, and their peak.
local function plan_of(layers, goal)
  local list, i, way = {}, #layers, goal
  while way.from do
    local first = list[1]
    if first and not way.checkpoint and not first.checkpoint then
      first.first = way.from + 1
    else
      table.insert(list, 1, { first = way.from + 1, last = i, checkpoint = way.checkpoint })
    end
    i, way = way.from, way.before
  end
  local stored, peak = 0, 0
  for _, segment in ipairs(list) do
    local full, moving = stored, 0
    for k = segment.first, segment.last do
      full = full + layers[k].kept - (k > segment.first and layers[k - 1].spare or 0)
      if segment.checkpoint then
        moving = math.max(moving, in_flight(layers, k))
        if k == segment.last then peak = math.max(peak, full + moving + layers[k].output) end
      else
        peak = math.max(peak, full + in_flight(layers, k))
      end
    end
    stored = segment.checkpoint and stored + layers[segment.last].output or full
  end
  return { segments = list, peak = peak, recomputed = goal.recomputed }
end

--- The segments that recompute the fewest layers with a peak of at most `budget` bytes, found
--- by dynamic programming. The peak counts activations and their gradients; parameters, their
--- gradients, the input, what is done with the result, and the graph itself come on top.
---@param layers {kept: number, output: number, spare: number?}[] from nn.measure_layers
---@param budget number bytes
---@return {segments: {first: integer, last: integer, checkpoint: boolean}[], peak: integer,
---  recomputed: integer}
function M.plan_checkpoints(layers, budget)
  local where = "nn.plan_checkpoints"
  check.type(where, "layers", layers, "table")
  for i = 1, #layers do
    local name = ("layers[%d]"):format(i)
    check.type(where, name, layers[i], "table")
    check.number(where, name .. ".kept", layers[i].kept, 0)
    check.number(where, name .. ".output", layers[i].output, 0)
    check.number(where, name .. ".spare", layers[i].spare or 0, 0, layers[i].kept)
  end
  check.number(where, "budget", budget, 0)
  if #layers == 0 then return { segments = {}, peak = 0, recomputed = 0 } end
  local goal = nil
  for _, way in pairs(search(layers, budget, true)) do
    local better = not goal or way.recomputed < goal.recomputed
      or way.recomputed == goal.recomputed and way.stored < goal.stored
    if better then goal = way end
  end
  if not goal then
    check.fail("nn.checkpoint_sequential: a budget of %.0f bytes is too small: with the best "
      .. "segments the peak is %.0f; raise the budget or make the batch smaller", budget,
      least_peak(layers))
  end
  return plan_of(layers, goal)
end

-- As PyTorch: segments of equal length; the last, with what is left over, is not checkpointed.
local function equal_segments(n, count)
  local length, list = math.floor(n / count), {}
  for k = 1, count - 1 do
    list[k] = { first = (k - 1) * length + 1, last = k * length, checkpoint = true }
  end
  list[count] = { first = (count - 1) * length + 1, last = n, checkpoint = false }
  return { segments = list }
end

-- A plan that somebody made: its segments have to cover layers 1..n in order.
local function check_plan(where, plan, n)
  check.type(where, "plan", plan, "table")
  check.type(where, "plan.segments", plan.segments, "table")
  local next_layer = 1
  for k, segment in ipairs(plan.segments) do
    local name = ("plan.segments[%d]"):format(k)
    check.type(where, name, segment, "table")
    check.integer(where, name .. ".first", segment.first)
    check.integer(where, name .. ".last", segment.last)
    check.type(where, name .. ".checkpoint", segment.checkpoint or false, "boolean")
    if segment.first ~= next_layer or segment.last < segment.first or segment.last > n then
      check.fail("%s: '%s' is layers %d to %d, expected the segments to cover layers 1 to %d in "
        .. "order; the next one is %d", where, name, segment.first, segment.last, n, next_layer)
    end
    next_layer = segment.last + 1
  end
  if next_layer ~= n + 1 then
    check.fail("%s: the segments of 'plan' end at layer %d, expected %d, the last", where,
      next_layer - 1, n)
  end
  return plan
end

local plans = setmetatable({}, { __mode = "k" }) -- by module, then by what it was made for

local function plan_for(seq, x, budget)
  local own = plans[seq] or {}
  plans[seq] = own
  local mode = nyx.system.autocast_mode()
  local key = table.concat({ #seq, budget, tostring(seq.training), tostring(x.requires_grad),
    x.dtype, x.device, tostring(mode.enabled), mode.dtype, table.concat(x.shape, "x") }, " ")
  if not own[key] then own[key] = M.plan_checkpoints(M.measure_layers(seq, x), budget) end
  return own[key]
end

-- ---------------------------------------------------------------- the run

-- Outputs go as soon as the next layer has run, unless a graph needs them.
local function run_layers(seq, first, last, x)
  for i = first, last do
    local y = nyx.scope(seq[i], x)
    if i > first and not rawequal(x, y) then x:release() end
    x = y
  end
  return x
end

local function run_segments(seq, segments, x)
  for _, segment in ipairs(segments) do
    local run = segment.checkpoint and checkpoint.checkpoint or nyx.scope
    x = run(run_layers, seq, segment.first, segment.last, x)
  end
  return x
end

--- seq(x), which keeps less for the backward pass and computes it again there. With
--- {segments = n} in n parts of equal length, of which the last is kept; with {budget = bytes}
--- in those that recompute the fewest layers within the budget (nn.plan_checkpoints), found by
--- running every layer once for each new shape of x; with {plan = ...} as given. Tensors
--- made inside are released as by nyx.scope, except the result.
---@param seq nyx.nn.Sequential
---@param x nyx.Tensor
---@param options {segments: integer, budget: number, plan: table}
---@return nyx.Tensor
function M.checkpoint_sequential(seq, x, options)
  local where = "nn.checkpoint_sequential"
  if type(seq) ~= "table" or #seq == 0 then
    check.fail("%s: 'seq' is %s, expected an nn.Sequential with layers", where,
      check.describe(seq))
  end
  check.tensor(where, "x", x)
  options = check.options(where, options, "segments budget plan")
  local plan = options.plan
  local given = {}
  for _, name in ipairs { "segments", "budget", "plan" } do
    if options[name] ~= nil then given[#given + 1] = "'" .. name .. "'" end
  end
  if #given > 1 then
    check.fail("%s: got %s, expected one of 'segments', 'budget' and 'plan'", where,
      table.concat(given, " and "))
  end
  if plan ~= nil then
    check_plan(where, plan, #seq)
  elseif options.budget then
    check.number(where, "budget", options.budget, 0)
    if nyx.is_grad_enabled() then plan = plan_for(seq, x, options.budget) end
  else
    check.integer(where, "segments", options.segments)
    if options.segments > #seq then
      check.fail("%s: 'segments' is %d, expected at most the %d layers", where, options.segments,
        #seq)
    end
    plan = equal_segments(#seq, options.segments)
  end
  if not plan or nyx.system.in_transform() then return seq(x) end
  return nyx.scope(run_segments, seq, plan.segments, x)
end

return M
