console.log('before')
Promise.reject({ code: 'E_THING', nested: { deep: [1, 2] } })
