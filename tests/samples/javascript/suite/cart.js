const _ = require('lodash')

exports.total = (items) => _.sumBy(items, (item) => item.price * item.count)
exports.checkout = async (items, pay) => pay(exports.total(items))
