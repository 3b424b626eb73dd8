-- Writes the reference: every op from the op table, every function that has a help text.
--   nyx docs/reference.lua > docs/reference.md
-- spec/docs/docs_spec.lua checks that the file is up to date. Read next: lua/nyx/help.lua.
local help = require "nyx.help"

local heading = [[
# Reference

Written from the op table by `nyx docs/reference.lua > docs/reference.md`; `help "name"` shows
the same in the REPL. The [guide](guide.md) shows how things go together.

- `x:op(...)` is also `nyx.op(x, ...)`. What stands in `[ ]` may be left out.
- Arguments after the tensors may be given by name in one table at the end:
  `x:sum { dim = 1, keepdim = true }`. Ops under *creation* and *random* that make a tensor take
  `dtype`, `device` and `requires_grad` there.
- Positions, dimensions and labels count from 1, dimensions also from the end with -1.
- Dtypes: *all* of them, or *floats* (float32 float64 float16 bfloat16), *integers* (int8 uint8
  int32 int64), *numbers* (both), or those named. *Integers become float*: the default float dtype.
- *In place* names the method that writes the result into x.
- Elementwise ops, reductions, views, creation, random numbers and *portable* ops run
  on every device, *composite* ones where the ops they are made of do. What a device cannot do
  raises an error.
]]

local sets = {
  ["float32 float64 float16 bfloat16 int8 uint8 int32 int64 bool"] = "all",
  ["float32 float64 float16 bfloat16"] = "floats",
  ["float32 float64 float16 bfloat16 int8 uint8 int32 int64"] = "numbers",
  ["int8 uint8 int32 int64"] = "integers",
  ["int8 uint8 int32 int64 bool"] = "integers and bool",
}

local order = { float32 = 1, float64 = 2, float16 = 3, bfloat16 = 4, int8 = 5, uint8 = 6,
  int32 = 7, int64 = 8, bool = 9, complex64 = 10, complex128 = 11 }

local types = { int = "integer", float = "number", bool = "boolean", ints = "integer or integers",
  dim = "dimension", dims = "dimension or dimensions", index = "position", string = "string",
  dtype = "dtype" }

local function dtypes(op)
  local names = {}
  for i, name in ipairs(op.dtypes) do names[i] = name end
  table.sort(names, function(a, b) return order[a] < order[b] end)
  local text = table.concat(names, " ")
  return sets[text] or text
end

-- A help text on one line, with a full stop.
local function sentence(text)
  text = text:gsub("%s+", " ")
  return text:find("[%.%?!]$") and text or text .. "."
end

local function attribute(attr)
  local facts = { types[attr.type] }
  if attr.preset ~= nil then
    facts[2] = "default `" .. help.value(attr.preset) .. "`"
  elseif not attr.required then
    facts[2] = "optional"
  end
  local doc = attr.doc == "a number" and "." or ": " .. sentence(attr.doc)
  return ("- `%s`, %s%s"):format(attr.name, table.concat(facts, ", "), doc)
end

local function facts_of(op)
  local facts = { op.kind, dtypes(op) }
  if op.promotion == "float" and op.kind ~= "composite" then
    facts[#facts + 1] = "integers become float"
  end
  if op.outputs > 1 then facts[#facts + 1] = ("%d results"):format(op.outputs) end
  if op.kind ~= "composite" then
    facts[#facts + 1] = op.differentiable and "differentiable" or "no gradient"
  end
  local in_place = help.in_place(op)
  if in_place then facts[#facts + 1] = "in place `" .. in_place .. "`" end
  return "*" .. table.concat(facts, "; ") .. "*"
end

local function op_text(op)
  local lines = { "### `" .. help.signature(op) .. "`", "", sentence(op.doc), "" }
  for _, input in ipairs(op.inputs) do
    if input.positions then
      lines[#lines + 1] = ("- `%s`, an integer tensor of positions or labels."):format(input.name)
    end
  end
  for _, attr in ipairs(op.attrs) do lines[#lines + 1] = attribute(attr) end
  if lines[#lines] ~= "" then lines[#lines + 1] = "" end
  lines[#lines + 1] = facts_of(op)
  return table.concat(lines, "\n")
end

-- A help text begins with how the function is called.
local function function_text(text)
  local signature, rest = text:match("^(.-):%s+(.*)$")
  if not signature then return "### `" .. text .. "`" end
  return ("### `%s`\n\n%s"):format(signature, sentence(rest))
end

local function link(title)
  return ("[%s](#%s)"):format(title, (title:gsub(" ", "-"):gsub("%.", "")))
end

local parts, contents = { heading }, {}
for _, group in ipairs(help.groups()) do
  contents[#contents + 1] = link(group.group)
  parts[#parts + 1] = "## " .. group.group
  if group.group == "gradient" then
    parts[#parts + 1] = "Internal: what the gradients of other ops are made of."
  end
  for _, entry in ipairs(group.entries) do
    parts[#parts + 1] = entry.op and op_text(entry.op) or function_text(entry.text)
  end
end
parts[1] = heading .. "\n" .. table.concat(contents, " · ")
io.write(table.concat(parts, "\n\n"), "\n")
