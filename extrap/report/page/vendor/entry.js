// The marks of Observable Plot that the page draws with; `make vendor` bundles them, and what they need, into plot.min.js.
export {areaY, axisX, axisY, dot, gridX, gridY, line, plot, ruleX, ruleY, text} from "@observablehq/plot";
