-- The documentation says what is so: the reference is up to date, every lua block runs and
-- prints what its comments promise, every file and every C name mentioned exists.
--
-- A block of ```lua is a script of its own; `--> text` in it is to be found in its output,
-- in this order. Blocks with <close> are for Lua 5.4 only. Read next: add_op_spec.lua.
local source = debug.getinfo(1, "S").source
package.path = (source:match "^@(.*/)" or "./") .. "?.lua;" .. package.path
local shell = require "shell"
local root = shell.root(source)
local nyx = shell.interpreter()

local function lines_of(command)
  local list, _, text = {}, shell.run(command)
  for line in text:gmatch("[^\n]+") do list[#list + 1] = line end
  return list
end

local pages = lines_of(("cd '%s' && ls README.md docs/*.md docs/decisions/*.md"):format(root))

-- Blocks of a language in a page: {line, text}.
local function blocks_of(page, language)
  local list, current, number = {}, nil, 0
  for line in (shell.read(root .. page) .. "\n"):gmatch("(.-)\r?\n") do
    number = number + 1
    if current and line:find("^%s*```%s*$") then
      if current.language == language then
        list[#list + 1] = { line = current.line, text = table.concat(current, "\n") .. "\n" }
      end
      current = nil
    elseif current then
      current[#current + 1] = line
    elseif line:find("^%s*```") then
      current = { language = line:match("```%s*([%w-]*)"), line = number }
    end
  end
  return list
end

describe("docs/reference.md", function()
  it("is what docs/reference.lua writes", function()
    local code, text = shell.run(("cd '%s' && '%s' docs/reference.lua"):format(root, nyx))
    assert.equal(0, code, text)
    local expected, line = {}, 0
    for part in (text .. "\n"):gmatch("(.-)\n") do expected[#expected + 1] = part end
    for part in (shell.read(root .. "docs/reference.md") .. "\n"):gmatch("(.-)\n") do
      line = line + 1
      if part ~= expected[line] then
        error(("line %d is %q, the op table says %q; write it again with\n"
          .. "  nyx docs/reference.lua > docs/reference.md"):format(line, part,
          expected[line] or "(nothing)"), 0)
      end
    end
    assert.equal(#expected, line)
  end)

  it("lists every op once", function()
    local text = shell.read(root .. "docs/reference.md")
    for op in require("nyx").ops() do
      local count = 0
      for signature in text:gmatch("\n### `([^`]+)`") do
        if signature:match("[.:]([%w_]+)") == op.name then count = count + 1 end
      end
      assert.equal(1, count, op.name)
    end
  end)
end)

describe("lua in", function()
  local count = 0
  for _, page in ipairs(pages) do
    for _, block in ipairs(blocks_of(page, "lua")) do
      count = count + 1
      it(("%s, line %d, runs"):format(page, block.line), function()
        if rawget(_G, "jit") and block.text:find("<close>", 1, true) then
          pending("for Lua 5.4")
          return
        end
        local folder = shell.folder()
        shell.write(folder .. "/block.lua", block.text)
        local code, output = shell.run(("cd '%s' && '%s' block.lua"):format(folder, nyx))
        shell.run("rm -r '" .. folder .. "'")
        assert.equal(0, code, output)
        local from = 1
        for expected in block.text:gmatch("%-%->%s*([^\n]*)") do
          local _, last = output:find(expected, from, true)
          assert(last, ("'%s' does not follow in the output:\n%s"):format(expected, output))
          from = last + 1
        end
      end)
    end
  end

  it("the documentation, there is some", function()
    assert.is_true(count >= 10)
  end)
end)

describe("names in", function()
  local files, folders, base, code = {}, {}, {}, nil
  for _, path in ipairs(lines_of(("cd '%s' && find . -path ./.git -prune -o -path ./build -prune "
    .. "-o -path ./install -prune -o -type f -print"):format(root))) do
    path = path:gsub("^%./", "")
    files[path] = true
    base[path:match("[^/]+$")] = true
    for i = 1, #path do
      if path:sub(i, i) == "/" then folders[path:sub(1, i - 1)] = true end
    end
  end

  local function exists(path)
    path = path:gsub("^%./", ""):gsub("/$", "")
    return files[path] or folders[path]
  end

  -- What a C name has to occur in.
  local function c_text()
    if code then return code end
    local parts = {}
    for path in pairs(files) do
      if path:find("%.[ch]$") and not path:find("^spec/") or path:find("%.def$") then
        parts[#parts + 1] = shell.read(root .. path)
      end
    end
    code = table.concat(parts, "\n")
    return code
  end

  local extensions = { c = true, h = true, def = true, lua = true, md = true, sh = true }

  for _, page in ipairs(pages) do
    it(page .. " exist", function()
      local text = shell.read(root .. page):gsub("```.-```", "")
      local folder = page:match("^(.*/)") or ""
      local missing = {}
      for target in text:gmatch("%]%(([^)#]+)[^)]*%)") do
        if not target:find("^https?:") then
          local path = folder .. target
          while path:find("[^/]+/%.%./") do path = path:gsub("[^/]+/%.%./", "", 1) end
          if not exists(path) then missing[#missing + 1] = target end
        end
      end
      for name in text:gmatch("`([%w_%-%./]+)[^`\n]*`") do
        local is_path = name:find("/", 1, true) and not name:find("^build/")
        local is_file = not is_path and extensions[name:match("%.(%a+)$") or ""]
        local is_c = name:find("^nyx__?[%l%d_]+$") or name:find("^NYX_[%u%d_]+$")
        if is_path and not exists(name) or is_file and not base[name]
          or is_c and not c_text():find(name, 1, true) then
          missing[#missing + 1] = name
        end
      end
      assert.equal("", table.concat(missing, ", "))
    end)
  end
end)
