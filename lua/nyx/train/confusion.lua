-- Accuracy and confusion matrices of a classifier.
local check = require "nyx.check"
local nyx = require "nyx"

local M = {}

local MOST_CLASSES = 4096 -- of a matrix that is made of Lua tables

-- Labels from labels, or from scores of every class: the position of the highest.
local function labels_of(where, predicted, target)
  check.tensor(where, "predicted", predicted)
  check.tensor(where, "target", target)
  if predicted:dim() == target:dim() + 1 then predicted = predicted:argmax(2) end
  local a, b = table.concat(predicted.shape, "x"), table.concat(target.shape, "x")
  if a ~= b then
    check.fail("%s: the predictions have shape (%s), the targets (%s)", where, a, b)
  end
  return predicted
end

--- The share of right predictions. `predicted` holds labels, or scores (batch, classes).
---@param predicted any
---@param target any labels, from 1
---@return number
function M.accuracy(predicted, target)
  predicted = labels_of("train.accuracy", predicted, target)
  return predicted:eq(target):to("float32"):mean():item()
end

--- How often class i (row) was predicted as class j (column): an int64 tensor.
---@param predicted any labels, or scores (batch, classes)
---@param target any labels, from 1
---@param classes? integer the highest label, unless given
---@return any
function M.confusion(predicted, target, classes)
  predicted = labels_of("train.confusion", predicted, target)
  local from, to = target:reshape({ -1 }):totable(), predicted:reshape({ -1 }):totable()
  local n = classes == nil and 0 or check.integer("train.confusion", "classes", classes)
  if not classes then
    for i = 1, #from do
      for _, label in ipairs { from[i], to[i] } do
        if label > n and label < math.huge and label % 1 == 0 then n = label end
      end
    end
  end
  if n > MOST_CLASSES then
    check.fail("train.confusion: there are labels up to %.0f, expected at most %d classes", n,
      MOST_CLASSES)
  end
  local counts = {}
  for i = 1, n do
    counts[i] = {}
    for j = 1, n do counts[i][j] = 0 end
  end
  for i = 1, #from do
    local row = counts[from[i]]
    if not row or not row[to[i]] then
      check.fail("train.confusion: label %g at position %d, expected 1..%d",
        row and to[i] or from[i], i, n)
    end
    row[to[i]] = row[to[i]] + 1
  end
  return nyx.tensor(counts, { dtype = "int64" })
end

--- A confusion matrix as text: counts, and the recall of every class. Zeros are dots.
---@param matrix any
---@param names? string[] of the classes; default 1, 2, ...
---@return string
function M.confusion_text(matrix, names)
  check.tensor("train.confusion_text", "matrix", matrix)
  if matrix:dim() ~= 2 or matrix:size(1) ~= matrix:size(2) or matrix.dtype == "bool" then
    check.fail("train.confusion_text: 'matrix' is %s, expected counts (classes, classes)",
      check.describe(matrix))
  end
  if names ~= nil then check.type("train.confusion_text", "names", names, "table") end
  local counts = matrix:totable()
  local n, width, label = #counts, 1, #"true"
  names = names or {}
  for i = 1, n do
    label = math.max(label, #tostring(names[i] or i))
    width = math.max(width, #tostring(names[i] or i))
    for j = 1, n do width = math.max(width, #("%.0f"):format(counts[i][j])) end
  end
  local function right(text, columns) return (" "):rep(columns - #text) .. text end
  local function cell(value) return right(value, width + 1) end
  local lines = { right("true", label) }
  for j = 1, n do lines[1] = lines[1] .. cell(tostring(names[j] or j)) end
  lines[1] = lines[1] .. "  recall"
  for i = 1, n do
    local line, total = right(tostring(names[i] or i), label), 0
    for j = 1, n do
      total = total + counts[i][j]
      line = line .. cell(counts[i][j] == 0 and "." or ("%.0f"):format(counts[i][j]))
    end
    lines[i + 1] = total == 0 and line .. "      -"
      or ("%s  %5.1f%%"):format(line, 100 * counts[i][i] / total)
  end
  return table.concat(lines, "\n")
end

return M
