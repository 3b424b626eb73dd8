-- nyx.graph: the graph under a tensor as text for Graphviz, and as a picture.
-- Read next: bindings/lua/graph.c (x.grad_fn), core/grad/inspect.c.
local nyx = require "nyx"
local check = require "nyx.check"
local files = require "nyx.io.file"

local unpack = unpack or table.unpack
local system = nyx.system

local M = {}

--- A node of the graph: what recorded a tensor. x.grad_fn gives the one that made x.
---@class nyx.Node
---@field name string the op or function
---@field order integer rises with every node; inputs have lower ones
---@field freed boolean whether a backward pass dropped what was saved
---@field inputs fun(self): table[] where its gradients go: {input, shape, dtype}, and
--- {node, index} or {leaf}
---@field outputs fun(self): table[] {shape, dtype} of its results
---@field saved fun(self): table[] {what, shape, dtype, bytes} of what it keeps for backward

-- ---------------------------------------------------------------- the walk

-- The tensors whose graph is asked for, as a list.
local function roots_of(where, y)
  local roots = nyx.is_tensor(y) and { y } or y
  if type(roots) ~= "table" or #roots == 0 then
    check.fail("%s: 'y' is %s, expected a tensor or a list of tensors", where, check.describe(y))
  end
  for i, root in ipairs(roots) do
    check.tensor(where, ("y[%d]"):format(i), root)
    if not root.requires_grad then
      check.fail("%s: the tensor has no graph: it does not require a gradient; call "
        .. "requires_grad_() on what it is computed from first", where)
    end
  end
  return roots
end

-- All nodes under the roots, oldest first.
local function nodes_of(roots)
  local nodes, seen = {}, {}
  local function add(node)
    if node and not seen[node.order] then
      seen[node.order] = true
      nodes[#nodes + 1] = { node = node, order = node.order }
    end
  end
  for _, root in ipairs(roots) do add(root.grad_fn) end
  local i = 1
  while nodes[i] do
    nodes[i].inputs = nodes[i].node:inputs()
    for _, input in ipairs(nodes[i].inputs) do add(input.node) end
    i = i + 1
  end
  table.sort(nodes, function(a, b) return a.order < b.order end)
  return nodes
end

-- Names by the tensor they belong to, and by the node and output that made it.
local function names_of(where, names)
  local of_tensor, of_result = {}, {}
  local function note(name, tensor)
    if not nyx.is_tensor(tensor) then
      check.fail("%s: names['%s'] is %s, expected a tensor", where, name, check.describe(tensor))
    end
    of_tensor[system.tensor_id(tensor)] = name
    local node = tensor.grad_fn
    if node then of_result[node.order] = of_result[node.order] or name end
  end
  if names == nil then return of_tensor, of_result end
  check.type(where, "names", names, "table")
  if names.named_parameters then
    for name, parameter in names:named_parameters() do note(name, parameter) end
    return of_tensor, of_result
  end
  local sorted = {}
  for name in pairs(names) do sorted[#sorted + 1] = name end
  table.sort(sorted, function(a, b) return tostring(a) > tostring(b) end)
  for _, name in ipairs(sorted) do note(tostring(name), names[name]) end
  return of_tensor, of_result
end

-- ---------------------------------------------------------------- text

local function quoted(...)
  local text = table.concat({ ... }, "\n")
  return '"' .. text:gsub('[\\"]', "\\%0"):gsub("\r", " "):gsub("\n", "\\n"):gsub("%z", " ") .. '"'
end

local function spec_text(spec)
  local shape = #spec.shape == 0 and "scalar" or table.concat(spec.shape, "x")
  return shape .. " " .. spec.dtype
end

local function size_text(bytes)
  local units, unit = { "B", "KiB", "MiB", "GiB", "TiB" }, 1
  while bytes >= 1024 and unit < #units do bytes, unit = bytes / 1024, unit + 1 end
  return (unit == 1 and "%d %s" or "%.1f %s"):format(bytes, units[unit])
end

local function saved_text(node)
  local bytes = 0
  for _, saved in ipairs(node:saved()) do bytes = bytes + saved.bytes end
  if bytes > 0 then return "saves " .. size_text(bytes) end
end

--- The graph under y in Graphviz' language: ops as boxes, leaves as ellipses, and what flows
--- between them with shapes and dtypes. Options: names, tables from names to tensors, or a
--- module, for its parameters' names; saved, whether boxes tell how much memory they hold.
--- The same graph gives the same text.
---@param y nyx.Tensor|nyx.Tensor[]
---@param options? {names: table, saved: boolean}
---@return string
function M.dot(y, options)
  local where = "graph.dot"
  options = check.options(where, options, "names saved")
  local roots = roots_of(where, y)
  local of_tensor, of_result = names_of(where, options.names)
  local nodes = nodes_of(roots)
  local lines = {
    "digraph nyx {",
    "  node [shape=box, fontname=\"Helvetica\"];",
    "  edge [fontname=\"Helvetica\", fontsize=10];",
  }
  local number, leaves, leaf_count = {}, {}, 0
  for i, entry in ipairs(nodes) do number[entry.order] = i end
  local function leaf(tensor)
    local id = system.tensor_id(tensor)
    if not leaves[id] then
      leaf_count = leaf_count + 1
      leaves[id] = "t" .. leaf_count
      lines[#lines + 1] = ("  %s [shape=ellipse, label=%s];"):format(leaves[id],
        quoted(of_tensor[id] or "leaf", spec_text(tensor)))
    end
    return leaves[id]
  end
  for i, entry in ipairs(nodes) do
    local label = { entry.node.name }
    label[#label + 1] = of_result[entry.order]
    if options.saved then label[#label + 1] = saved_text(entry.node) end
    lines[#lines + 1] = ("  n%d [label=%s];"):format(i, quoted(unpack(label)))
    for _, input in ipairs(entry.inputs) do
      local from = input.node and "n" .. number[input.node.order] or leaf(input.leaf)
      lines[#lines + 1] = ("  %s -> n%d [label=%s];"):format(from, i, quoted(spec_text(input)))
    end
  end
  for i, root in ipairs(roots) do
    local from = root.grad_fn and "n" .. number[root.grad_fn.order] or leaf(root)
    lines[#lines + 1] = ("  y%d [shape=plaintext, label=%s];"):format(i,
      quoted(#roots > 1 and "result " .. i or "result"))
    lines[#lines + 1] = ("  %s -> y%d [label=%s];"):format(from, i, quoted(spec_text(root)))
  end
  lines[#lines + 1] = "}\n"
  return table.concat(lines, "\n")
end

-- ---------------------------------------------------------------- files

-- true, or nil and why not.
local function write(path, text)
  local file, message = io.open(path, "wb")
  if not file then return nil, message end
  local written, reason = file:write(text)
  if not file:close() or not written then return nil, ("%s: %s"):format(path, tostring(reason)) end
  return true
end

local function shell(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- What a command prints, and its exit status.
local function run(command)
  local pipe = io.popen("{ " .. command .. "; } 2>&1; echo \"status $?\"")
  if not pipe then return "", -1 end
  local output = pipe:read("*a")
  pipe:close()
  local text, status = output:match("^(.*)status (%d+)%s*$")
  return text or output, tonumber(status) or -1
end

local pictures = { svg = true, png = true, pdf = true }

-- Has Graphviz draw the text: true, or nil and why not.
local function draw(program, kind, text, path)
  return files.replace(path, function(out, made)
    local source = made .. ".dot"
    local ok, reason = write(source, text)
    if not ok then return nil, reason end
    local function file(name) return shell(name:sub(1, 1) == "-" and "./" .. name or name) end
    local message, status = run(("%s -T%s %s -o %s"):format(program, kind, file(source),
      file(made)))
    os.remove(source)
    if status == 0 and out:seek("end") > 0 then return true end
    return nil, "dot could not make it: " .. message
  end)
end

--- Writes the graph under y to a file: text (.dot, .gv), or a picture (.svg, .png, .pdf),
--- which Graphviz' program `dot` makes. Options as for graph.dot, and program, what to call
--- instead of "dot". true, or nil and a message when it cannot be written or drawn.
---@param y nyx.Tensor|nyx.Tensor[]
---@param path string
---@param options? {names: table, saved: boolean, program: string}
---@return true? written
---@return string? message
function M.save(y, path, options)
  local where = "graph.save"
  check.type(where, "path", path, "string")
  options = check.options(where, options, "names saved program")
  local kind = (path:match("%.(%w+)$") or ""):lower()
  if kind ~= "dot" and kind ~= "gv" and not pictures[kind] then
    check.fail("%s: '%s' ends in '%s', expected .dot, .gv, .svg, .png or .pdf", where, path, kind)
  end
  local text = M.dot(y, { names = options.names, saved = options.saved })
  if not pictures[kind] then return write(path, text) end
  local program = shell(options.program or "dot")
  if select(2, run("command -v " .. program .. " >/dev/null")) ~= 0 then
    return nil, ("%s: a .%s file needs Graphviz' program 'dot', which is not here; install it "
      .. "(apt install graphviz, dnf install graphviz, brew install graphviz), or save a .dot "
      .. "file, which needs nothing"):format(path, kind)
  end
  return draw(program, kind, text, path)
end

return M
