-- Every script in examples/ runs to its end, in whatever interpreter runs the specs.
local here = debug.getinfo(1, "S").source:match("^@(.*)spec/lua/") or ""

local function scripts()
  local list = {}
  local pipe = assert(io.popen(("ls '%sexamples'"):format(here)))
  for name in pipe:lines() do
    if name:find("%.lua$") then list[#list + 1] = name end
  end
  pipe:close()
  return list
end

-- The program that runs the specs: the lowest index of arg.
local function interpreter()
  local lowest = 0
  while arg[lowest - 1] do lowest = lowest - 1 end
  return arg[lowest]
end

-- Exit code and output of a command, in Lua 5.1 as well.
local function run(command)
  local pipe = assert(io.popen(command .. " 2>&1; echo \"exit $?\""))
  local output = pipe:read("*a")
  pipe:close()
  local text, code = output:match("^(.*)exit (%d+)\n$")
  return tonumber(code), text
end

describe("examples", function()
  it("are there", function()
    assert.is_true(#scripts() >= 1)
  end)

  for _, name in ipairs(scripts()) do
    it(name .. " runs", function()
      local code, output = run(("'%s' '%sexamples/%s'"):format(interpreter(), here, name))
      assert.are.equal(0, code, output)
    end)
  end

  it("digits.lua learns, shows what it learned, and says so", function()
    local model = os.tmpname()
    local code, output = run(("'%s' '%sexamples/digits.lua' '%s'"):format(interpreter(), here,
      model))
    assert.are.equal(0, code, output)
    local accuracy = tonumber(output:match("held%-out accuracy: ([%d.]+) %%"))
    assert.is_true(accuracy >= 97 and accuracy <= 100)
    assert.matches("1438 images to learn from, 359 held out", output, 1, true)
    assert.matches("epoch  1  100%", output, 1, true)
    assert.matches("true.*0.*9  recall", output)
    assert.matches("read %d", output)
    assert.matches("saved to " .. model, output, 1, true)
    -- The saved file is a model that works here, too.
    local nyx = require "nyx"
    local net = assert(nyx.load(model))
    os.remove(model)
    assert.is_true(net:parameter_count() > 1000)
  end)
end)
