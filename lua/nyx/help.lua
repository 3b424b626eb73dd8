-- Help texts: those of ops are made from the op table, those of functions written in Lua or C
-- are kept beside them. nyx.help("matmul") and nyx.help(nyx.matmul) print; text() returns;
-- docs/reference.lua makes the reference from groups().
-- Read next: tensor.lua, texts.lua, bindings/lua/describe.c.
local nyx = require "nyx"
require("nyx.late").load_all() -- whose texts are among the following
local composites = require("nyx.tensor").docs
local layers = require "nyx.texts"
local trees = require "nyx.tree"

local M = {}

-- Functions of nyx.* and methods written in C, and fields: {group, text}.
local others = {
  tensor = { "creation", "nyx.tensor(data, {dtype, device, requires_grad}): a tensor of a " ..
    "number, a boolean, a nested table of them, or a copy of a tensor; float32 unless the " ..
    "values are booleans or dtype says otherwise" },
  frombuffer = { "creation", "nyx.frombuffer(bytes, dtype, shape, offset): elements from the " ..
    "bytes of a string, row by row" },
  to = { "conversion", "x:to(dtype), x:to(device), x:to(device, dtype), x:to(y), " ..
    "x:to{dtype=, device=, memory_format=}: x in that dtype, on that device and in that " ..
    "memory format (see contiguous); x itself when it is so already" },
  shape = { "tensor", "x.shape: the sizes, as a table of its own" },
  ndim = { "tensor", "x.ndim: the number of dimensions" },
  dtype = { "tensor", "x.dtype: the name of the element type, such as \"float32\"" },
  device = { "tensor", "x.device: the name of the device, such as \"cpu\"" },
  requires_grad = { "differentiation", "x.requires_grad: whether ops on x are recorded; can be " ..
    "assigned on a leaf" },
  is_leaf = { "differentiation", "x.is_leaf: whether no recorded op made x" },
  grad_fn = { "differentiation", "x.grad_fn: the node of the graph that made x, or nil: .name, " ..
    ".order, :inputs(), :outputs(), :saved()" },
  size = { "tensor", "x:size(dim): the size of a dimension; without dim all, as a table" },
  stride = { "tensor", "x:stride(dim): elements from one position to the next; without dim " ..
    "all, as a table" },
  dim = { "tensor", "x:dim(): the number of dimensions, as x.ndim" },
  is_same_size = { "comparison", "x:is_same_size(y): whether the shapes are equal" },
  numel = { "tensor", "x:numel(): the number of elements" },
  item = { "conversion", "x:item(): the number (or boolean) in a tensor with one element" },
  totable = { "conversion", "x:totable(): the elements as nested tables" },
  tobytes = { "conversion", "x:tobytes(): the elements as a string of bytes, row by row" },
  copy_ = { "in place", "x:copy_(value): writes a tensor of any dtype, broadcast and converted " ..
    "as by to, a table or a number that x's dtype holds into x" },
  fill_ = { "in place", "x:fill_(number): writes one number everywhere" },
  zero_ = { "in place", "x:zero_(): writes zeros" },
  release = { "memory", "x:release(): gives the memory back now; x cannot be used any more" },
  is_contiguous = { "tensor", "x:is_contiguous(memory_format): whether the elements lie row by " ..
    "row, or \"channels_last\" (see contiguous)" },
  keep_packed = { "tensor", "x:keep_packed(on): ops that pack x for their kernels, as a weight " ..
    "of linear or conv2d, keep what they packed until x changes; false gives the memory back" },
  packed_bytes = { "tensor", "x:packed_bytes(): the bytes that are kept for x; nil without " ..
    "keep_packed" },
  data_ptr = { "tensor", "x:data_ptr(): the address of the first element, light userdata" },
  ffi = { "tensor", "x:ffi(): a pointer to the elements, for LuaJIT's FFI" },
  backward = { "differentiation", "x:backward(gradient, {retain_graph, create_graph}): adds " ..
    "d(x)/d(leaf) to the .grad of every leaf that requires a gradient" },
  grad = { "differentiation", "nyx.grad(y, inputs, {gradient, retain_graph, create_graph}): " ..
    "d(y)/d(x) for a tensor or a table of tensors that require gradients, nil where y does not " ..
    "depend on one, without touching .grad. x.grad: what " ..
    "backward added up in a leaf, or nil; assign nil to clear it" },
  detach = { "differentiation", "x:detach(): a view of x without history" },
  requires_grad_ = { "differentiation", "x:requires_grad_(on): asks for gradients of x (true)" },
  zero_grad = { "differentiation", "x:zero_grad(): clears x.grad" },
  no_grad = { "differentiation", "nyx.no_grad(fn, ...): fn(...) without recording" },
  grad_flow = { "differentiation", "nyx.grad_flow(model, {layers, columns, terminal}): the " ..
    "norms of a model's gradients, a row for every parameter or layer: name, state, norm, " ..
    "max, ratio, weight, count; printed, bars on a logarithmic scale" },
  derivative = { "differentiation", "nyx.derivative(what, {by, order}): the derivative of an " ..
    "elementwise op (\"sigmoid\") or expression (\"x * sin(x)\", over x, y, z, numbers and " ..
    "elementwise ops), simplified: its text, and a function of x, y, z that evaluates it. by is " ..
    "the variable (\"x\"), order how often (1; 0 only simplifies); attributes of the op by " ..
    "their names become numbers. At a kink the value is what backward gives; x / x counts as 1" },
  gradcheck = { "differentiation", "nyx.gradcheck(fn, inputs, {eps, atol, rtol, method, " ..
    "forward, batched, fast, nondet_tol, raise_exception}): whether the gradients of " ..
    "fn(unpack(inputs)) by the float64 inputs that require one are its derivatives: by the " ..
    "complex step (method \"complex\": rtol 1e-9, atol 1e-10), by central differences " ..
    "(\"numeric\": eps 1e-6, rtol 1e-3, atol 1e-5), or the first where it can be (\"auto\"); " ..
    "forward, batched: forward mode and vmap too; fast: along random directions. True and a " ..
    "report, or an error (raise_exception = false: false and a message) that names the output, " ..
    "the input and the elements" },
  gradgradcheck = { "differentiation", "nyx.gradgradcheck(fn, inputs, grad_outputs, options): " ..
    "nyx.gradcheck of the gradients of fn, by inputs and grad_outputs (a list; random when left " ..
    "out)" },
  inference_mode = { "differentiation", "nyx.inference_mode(fn, ...): fn(...) without " ..
    "recording; the tensors it makes cannot take part in gradients later, except as copies" },
  is_inference_mode_enabled = { "differentiation", "nyx.is_inference_mode_enabled(): whether " ..
    "nyx.inference_mode is on" },
  is_inference = { "differentiation", "x:is_inference(): whether x was made in " ..
    "nyx.inference_mode" },
  enable_grad = { "differentiation", "nyx.enable_grad(fn, ...): fn(...) with recording" },
  is_grad_enabled = { "differentiation", "nyx.is_grad_enabled(): whether ops are recorded" },
  set_grad_enabled = { "differentiation", "nyx.set_grad_enabled(on): turns recording on or off" },
  autocast = { "differentiation", "nyx.autocast(fn, ...), nyx.autocast({dtype, enabled, " ..
    "device}, fn, ...): fn(...) in mixed precision: products of matrices and convolutions take " ..
    "bfloat16 (or float16) inputs and add up in float32; sums, exponentials, norms and losses " ..
    "are computed in float32; float64 stays. Run forward and loss inside, backward outside" },
  is_autocast_enabled = { "differentiation", "nyx.is_autocast_enabled(): whether nyx.autocast " ..
    "is in effect" },
  checkpoint = { "differentiation", "nyx.checkpoint(f, ...), " ..
    "nyx.checkpoint({preserve_rng_state}, f, ...): f(...), which keeps only its " ..
    "arguments for the backward pass and runs again there, with the same random numbers; " ..
    "tensors made inside are released as by nyx.scope. The graph holds f until backward has run" },
  register_hook = { "differentiation", "x:register_hook(fn): calls fn(gradient) when a backward " ..
    "pass has the gradient of x, before it goes on or into x.grad; a tensor that fn gives takes " ..
    "its place. Gives a handle; handle:remove() takes the hook away. As long as x lives, so " ..
    "does fn: one that uses x itself is never collected unless it is removed; let it use " ..
    "x:detach()" },
  register_post_accumulate_grad_hook = { "differentiation",
    "x:register_post_accumulate_grad_hook(fn): calls fn(x) when a backward pass has added to " ..
    "x.grad, of a leaf x; gives a handle as register_hook. fn gets x: it need not hold it" },
  retain_grad = { "differentiation", "x:retain_grad(): lets backward fill x.grad though x is no " ..
    "leaf; gives x" },
  retains_grad = { "differentiation", "x.retains_grad: whether x:retain_grad() was called" },
  Function = { "differentiation", "nyx.Function(name, {forward, backward, " ..
    "once_differentiable}): a function with a gradient of its own. forward(ctx, ...) computes " ..
    "without recording, backward(ctx, ...) gets a gradient for each result and gives one for " ..
    "each argument, nil for what is no tensor. ctx: save_for_backward saved_tensors " ..
    "mark_non_differentiable needs_input_grad, and fields of your own" },
  save_for_backward = { "differentiation", "ctx:save_for_backward(...): in a nyx.Function's " ..
    "forward, keeps tensors (or nil) for backward; it is an error when one is changed meanwhile" },
  saved_tensors = { "differentiation", "ctx:saved_tensors(): in a nyx.Function's backward, what " ..
    "ctx:save_for_backward got" },
  mark_non_differentiable = { "differentiation", "ctx:mark_non_differentiable(...): in a " ..
    "nyx.Function's forward, says that these results have no gradient" },
  detect_anomaly = { "differentiation", "nyx.detect_anomaly(fn, ...): fn(...), where a backward " ..
    "pass fails at the first gradient with a nan, naming the op and the line it was applied at. " ..
    "Forward and backward belong inside; slow" },
  set_anomaly_enabled = { "differentiation", "nyx.set_anomaly_enabled(on): turns the search for " ..
    "nan of nyx.detect_anomaly on or off" },
  is_anomaly_enabled = { "differentiation", "nyx.is_anomaly_enabled(): whether backward passes " ..
    "look for nan" },
  profile_backward = { "differentiation", "nyx.profile_backward(fn, ...): fn(...), and a report " ..
    "of what its backward passes took, before fn's results: rows {name, calls, seconds, " ..
    "bytes}, the slowest first; printed, a table" },
  scope = { "memory", "nyx.scope(fn, ...): fn(...), then releases every tensor made inside that " ..
    "is not in its results (tables and closures included) and not given to nyx.keep" },
  keep = { "memory", "nyx.keep(...): lets tensors, or tables of them, outlive nyx.scope" },
  memory = { "memory", "nyx.memory(): bytes of tensor memory: live, peak, cached, limit; blocks " ..
    "allocated and reused" },
  memory_limit = { "memory", "nyx.memory_limit(bytes): the most that may be in use; 0: no limit" },
  arena = { "memory", "nyx.arena(bytes): one block of memory for named buffers, each a tensor " ..
    "on a multiple of 64 bytes that others, also in C, find by its name without a copy. " ..
    "a:buffer(name, shape, {dtype}) gives that buffer and makes it, of zeros, where there is " ..
    "none; a:buffer(name) gives one that exists; a:has(name), #a, a:list() ({name, dtype, " ..
    "shape, offset, bytes, in_use} of each) and a:memory() ({bytes, used, free}) tell of them. " ..
    "a:reset() forgets all, once nobody holds one; a:release() gives up a, while buffers keep " ..
    "the block" },
  manual_seed = { "random", "nyx.manual_seed(seed): equal seeds give equal random numbers" },
  get_rng_state = { "random", "nyx.get_rng_state(): where the random numbers are, a string " ..
    "for nyx.set_rng_state" },
  set_rng_state = { "random", "nyx.set_rng_state(state): brings the random numbers again " ..
    "that followed nyx.get_rng_state" },
  set_default_dtype = { "settings", "nyx.set_default_dtype(dtype): what float constructors make" },
  get_default_dtype = { "settings", "nyx.get_default_dtype()" },
  set_num_threads = { "settings", "nyx.set_num_threads(n): cores that work at once; 0: default" },
  get_num_threads = { "settings", "nyx.get_num_threads()" },
  set_affinity = { "settings", "nyx.set_affinity(cpus): where the pool's threads run: \"none\" " ..
    "(default), \"compact\", \"spread\" or a list as \"0-3,8\"; the calling thread stays where " ..
    "it is. NYX_AFFINITY says it in the environment" },
  get_affinity = { "settings", "nyx.get_affinity()" },
  set_numa = { "settings", "nyx.set_numa(policy): on which memory node large tensors made from " ..
    "here on lie: \"none\" (default: the system's policy), \"local\" (where they are touched " ..
    "first) or \"interleave\" (over all nodes). NYX_NUMA says it in the environment" },
  get_numa = { "settings", "nyx.get_numa()" },
  cpu_info = { "settings", "nyx.cpu_info(): what the CPU has and what the kernels use of it: " ..
    "name, path, cores, allowed, quota, nodes; bytes of line, l1, l2, l3; vector_bytes, " ..
    "vector_registers; in_place_bytes; tiles by dtype: {unit, rows, columns, registers, depth, " ..
    "a_bytes, b_bytes}" },
  tune = { "settings", "nyx.tune(mode, {file}): whether ops that have several ways measure " ..
    "which is fastest here: true measures each size when it is met and keeps the result in a " ..
    "file, \"use\" (default) follows that file and measures nothing, false goes by fixed rules, " ..
    "which give the same bits every time. file \"\": the default, in ~/.cache/nyx. Gives mode, " ..
    "file, known, measured, changed, sizes; nil and a message when the file cannot be used" },
  devices = { "settings", "nyx.devices(): a table of {name, description}" },
  prefilter = { "sorting", "nyx.prefilter(rows, {metric}): exact searches for the rows of a " ..
    "matrix (float32) with the largest products with a query (metric \"dot\"), or cosines " ..
    "(\"cosine\"), which look at the rows as bytes first and score in float32 only what these " ..
    "cannot rule out. p:topk(queries, k) gives values and positions as the plain product's " ..
    "topk does, p:candidates(queries, k) the rows that were not ruled out, p:stats() what " ..
    "p holds and what the last search left out; nyx.prefilter(p:state_dict()) is p again. The " ..
    "rows are kept and must not change" },
  is_tensor = { "tensor", "nyx.is_tensor(value): whether a value is a tensor" },
  ops = { "settings", "for op in nyx.ops() do: a description of every op" },
  op = { "settings", "nyx.op(name): the description of an op" },
  save = { "files", "nyx.save(path, object): writes a module, a tensor or plain tables of them " ..
    "to a .nyx file, a safetensors file, a tensor to .npy, a table of tensors to .npz; true, " ..
    "or nil and a message" },
  load = { "files", "nyx.load(path, {device, classes}): what nyx.save wrote, or the tensors of " ..
    "another safetensors file, of .npy or .npz; nil and a message when it cannot be read" },
  clock = { "settings", "nyx.clock(): seconds, for measuring" },
  class = { "settings", "nyx.class(name, parent): a class; Name(...) makes an object and calls " ..
    "init(self, ...)" },
}

--- A default as Lua writes it, the same in every Lua.
---@param value any
---@return string
function M.value(value)
  if type(value) == "table" then
    local parts = {}
    for i, v in ipairs(value) do parts[i] = M.value(v) end
    return "{" .. table.concat(parts, ", ") .. "}"
  end
  if value == math.huge then return "math.huge" end
  if value == -math.huge then return "-math.huge" end
  if type(value) == "number" then return ("%.14g"):format(value) end
  return type(value) == "string" and ("%q"):format(value) or tostring(value)
end

-- Breaks text into lines of at most `width` columns.
local function wrap(text, indent, width)
  local lines, line = {}, indent
  for word in text:gmatch("%S+") do
    if #line + #word + 1 > width and line ~= indent then
      lines[#lines + 1] = line
      line = indent
    end
    line = line .. (line == indent and "" or " ") .. word
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n")
end

--- How an op is called: "x:sum(dim, keepdim)".
---@param op table a description from nyx.op
---@return string
function M.signature(op)
  local names = {}
  for _, input in ipairs(op.inputs) do
    names[#names + 1] = input.optional and "[" .. input.name .. "]" or input.name
  end
  for _, attr in ipairs(op.attrs) do
    names[#names + 1] = attr.required and attr.name or "[" .. attr.name .. "]"
  end
  if op.variadic then
    names[1] = "{" .. names[1] .. "}"
    return ("nyx.%s(%s)"):format(op.name, table.concat(names, ", "))
  end
  if #op.inputs == 0 then return ("nyx.%s(%s)"):format(op.name, table.concat(names, ", ")) end
  local self = table.remove(names, 1)
  return ("%s:%s(%s)"):format(self, op.name, table.concat(names, ", "))
end

--- The name of the method that writes the result of an op into its first input.
---@param op table a description from nyx.op
---@return string? name
function M.in_place(op)
  local name = op.name .. "_"
  return (op.kind == "elementwise" or op.updates) and rawget(nyx.Tensor, name) and name or nil
end

local function op_text(op)
  local lines = { M.signature(op), wrap(op.doc, "  ", 88) }
  for _, attr in ipairs(op.attrs) do
    local preset = attr.preset ~= nil and ", default " .. M.value(attr.preset)
      or attr.required and "" or ", optional"
    lines[#lines + 1] = wrap(("%s (%s%s): %s"):format(attr.name, attr.type, preset, attr.doc),
      "  ", 88)
  end
  local facts = { op.group, op.kind }
  if #op.dtypes < 9 then facts[#facts + 1] = table.concat(op.dtypes, " ") end
  facts[#facts + 1] = op.differentiable and "differentiable"
    or op.kind ~= "composite" and "no gradient" or nil
  if op.autocast ~= "none" then facts[#facts + 1] = "autocast: " .. op.autocast end
  local in_place = M.in_place(op)
  if in_place then facts[#facts + 1] = "in place: " .. in_place end
  lines[#lines + 1] = wrap("[" .. table.concat(facts, "; ") .. "]", "  ", 88)
  return table.concat(lines, "\n")
end

-- What a dotted name such as "nn.Linear" stands for.
local function value_of(name)
  local value = nyx
  for part in name:gmatch("[%w_]+") do value = value[part] end
  return value
end

-- The name under which a function or class is found in nyx, among the methods, or in nyx.nn
-- and its like.
local function name_of(thing)
  for _, place in ipairs { nyx, nyx.Tensor } do
    for name, value in next, place do
      if value == thing and type(name) == "string" and type(thing) == "function" then
        return name
      end
    end
  end
  for name in pairs(layers) do
    if value_of(name) == thing then return name end
    local module = name:match("^(.*)%.")
    if value_of(module) == thing then return module end
  end
end

-- The last part of a dotted name.
local function last(name) return name:match("([%w_]+)%s*$") or name end

-- The text of a layer or the like: of its whole name, or of its last part.
local function layer_text(name)
  name = name:gsub("^%s*nyx%.", ""):gsub("%s+$", "")
  if layers[name] then return layers[name] end
  if name:find("[.:]") then return nil end
  local found
  for key in pairs(layers) do
    if last(key) == name and (not found or key < found) then found = key end
  end
  return layers[found]
end

--- All that there is help about, by group: groups in the order of the op table, then those
--- without ops by name, last the internal "gradient". An entry has a name, and either the
--- op's description or a text.
---@return {group: string, entries: {name: string, op: table?, text: string?}[]}[]
function M.groups()
  local found, list = {}, {}
  local function add(group, entry)
    if not found[group] then
      local order = group == "gradient" and math.huge or #list
      found[group] = { group = group, entries = {}, order = order }
      list[#list + 1] = found[group]
    end
    table.insert(found[group].entries, entry)
  end
  for op in nyx.ops() do
    if not others[op.name] then add(op.group, { name = op.name, op = op }) end
  end
  local texts = {}
  for _, docs in ipairs { composites, others, layers } do
    for name, doc in pairs(docs) do
      if docs ~= composites or not nyx.op(name) then
        texts[#texts + 1] = { group = doc[1], name = name, text = doc[2] }
      end
    end
  end
  local function by_name(a, b) return a.name < b.name end
  table.sort(texts, function(a, b)
    if a.group ~= b.group then return a.group < b.group end
    return a.name < b.name
  end)
  for _, entry in ipairs(texts) do add(entry.group, { name = entry.name, text = entry.text }) end
  for _, group in ipairs(list) do table.sort(group.entries, by_name) end
  table.sort(list, function(a, b) return a.order < b.order end)
  return list
end

-- The names in all groups, or in the one called `only` or "nyx." .. `only`.
local function overview(only)
  local lines = { 'help "name" explains one of:' }
  for _, group in ipairs(M.groups()) do
    if not only or group.group == only or group.group == "nyx." .. only then
      local names = {}
      for i, entry in ipairs(group.entries) do names[i] = entry.name end
      lines[#lines + 1] = group.group
      lines[#lines + 1] = wrap(table.concat(names, " "), "  ", 88)
    end
  end
  return lines[2] and table.concat(lines, "\n")
end

-- How many letters have to be inserted, removed, replaced or swapped with the next: a becomes b.
local function distance(a, b)
  local row = {}
  local last_row, before
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    before, last_row, row = last_row, row, { [0] = i }
    for j = 1, #b do
      local change = last_row[j - 1] + (a:byte(i) == b:byte(j) and 0 or 1)
      row[j] = math.min(last_row[j] + 1, row[j - 1] + 1, change)
      if before and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], before[j - 2] + 1)
      end
    end
  end
  return row[#b]
end

-- The name most like a mistyped one; nil when none is close.
local function nearest(name)
  local best, least = nil, math.max(1, math.floor(#name / 3)) + 1
  for _, group in ipairs(M.groups()) do
    for _, entry in ipairs(group.entries) do
      local d = distance(name, last(entry.name))
      if d < least then best, least = entry.name, d end
    end
  end
  return best
end

--- The help text of a name ("matmul", "x:matmul", "nyx.matmul"), of a function, or of a
--- description from nyx.op; the names in a group ("view", "nyx.nn"); an overview without an
--- argument.
---@param what? string|function|table
---@return string? text nil when there is none
---@return string? message
function M.text(what)
  if what == nil then return overview() end
  if type(what) == "table" and type(what.name) == "string" and what.attrs then
    return op_text(what)
  end
  if nyx.is_tensor(what) then
    return nil, "help: a tensor; help() lists its methods, print shows its elements"
  end
  if type(what) == "function" or type(what) == "table" then
    local name = name_of(what)
    if not name then return nil, ("help: no text for this %s"):format(type(what)) end
    what = name
  end
  if type(what) ~= "string" then
    return nil, ("help: no text for a %s; give a name or a function"):format(type(what))
  end
  local name = last(what)
  local op = nyx.op(name) or name:sub(-1) == "_" and nyx.op(name:sub(1, -2)) or nil
  local doc = others[name] or composites[name]
  local layer = layer_text(what)
  local is_dotted = what:gsub("^%s*nyx%.", ""):find(".", 1, true)
  if layer and (is_dotted or not (doc or op)) then doc = layer end
  if doc then return wrap(doc[2], "", 88) .. "\n  [" .. doc[1] .. "]" end
  if op then return op_text(op) end
  local group = overview((what:gsub("^nyx%.", "")))
  if group then return group end
  local near = nearest(name)
  return nil, ("help: nothing is called '%s'%s"):format(name,
    near and ("; did you mean '%s'?"):format(near) or "")
end

local annotation_types = { int = "integer", float = "number", bool = "boolean",
  ints = "integer|integer[]", dim = "integer", dims = "integer|integer[]", index = "integer",
  string = "string", dtype = "string" }

local field_types = { shape = "integer[]", ndim = "integer", dtype = "string", device = "string",
  requires_grad = "boolean", is_leaf = "boolean", grad_fn = "nyx.Node?", grad = "nyx.Tensor?",
  retains_grad = "boolean" }

-- "fn, {dtype, enabled}, ..." as parameters of a declaration; a table in braces is options.
local function parameters_of(text)
  local list = {}
  for part in (text:gsub("%b{}", "options") .. ","):gmatch("%s*([^,]*),") do
    local name = part:match("^[%a_][%w_]*$") or part == "..." and part
    if name then
      list[#list + 1] = name == "options" and "options?: table"
        or name == "..." and "...: any" or name .. "?: any"
    end
  end
  return list
end

-- The declaration of something with a help text, and whether tensors have it.
local function declaration(name, text)
  local first = text:gsub("%s+", " ")
  local self, called, arguments = first:match("^([%a_]+)([.:])" .. name .. "(%b())")
  if arguments then
    local list = parameters_of(arguments:sub(2, -2))
    local method = called == ":"
    if method then table.insert(list, 1, "self: nyx.Tensor") end
    if not (self == "nyx" and not method or self == "x" and method) then return nil end
    return ("---@field %s fun(%s): any %s"):format(name, table.concat(list, ", "), first), method
  end
  if first:find("^x%." .. name .. ":") then
    return ("---@field %s %s %s"):format(name, field_types[name] or "any", first), true
  end
end

--- Declarations of all ops, and of what else nyx.* and tensors have, for the Lua language
--- server: the text of a file to give it.
---@return string
function M.annotations()
  local methods, functions = { "---@meta", "", "---@class nyx.Tensor" }, { "", "---@class nyx" }
  for op in nyx.ops() do
    local params, results = {}, {}
    for i, input in ipairs(op.inputs) do
      local kind = op.variadic and "nyx.Tensor[]" or i == 1 and "nyx.Tensor" or "nyx.Tensor|number"
      params[i] = ("%s%s: %s"):format(input.name, input.optional and "?" or "", kind)
    end
    for _, attr in ipairs(op.attrs) do
      params[#params + 1] = ("%s%s: %s"):format(attr.name, attr.required and "" or "?",
        annotation_types[attr.type])
    end
    for i = 1, op.outputs do results[i] = "nyx.Tensor" end
    local text = ("---@field %s fun(%s, options?: table): %s %s"):format(op.name,
      table.concat(params, ", "), table.concat(results, ", "), (op.doc:gsub("%s+", " ")))
    text = text:gsub("fun%(, ", "fun(")
    functions[#functions + 1] = text
    if #op.inputs > 0 and not op.variadic then
      methods[#methods + 1] = (text:gsub("fun%([%w_]+:", "fun(self:", 1))
    end
  end
  for _, docs in ipairs { composites, others } do
    for _, name in ipairs(trees.keys(docs)) do
      local text, of_tensor = declaration(name, docs[name][2])
      if text and not nyx.op(name) then
        local list = of_tensor and methods or functions
        list[#list + 1] = text
      end
    end
  end
  methods[#methods + 1] = "---@field grad nyx.Tensor? what backward added up in a leaf"
  return table.concat(methods, "\n") .. "\n" .. table.concat(functions, "\n") .. "\n"
end

--- Prints a help text.
---@param what? string|function|table
function M.help(what)
  local text, message = M.text(what)
  io.write(text or message, "\n")
end

return M
